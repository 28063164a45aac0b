// What instructions on an mbarrier share.
#pragma once

#include <cstdint>

#include "mbarriers.h"

namespace cuda_emulator {

// Returns the barrier at this address. The launch fails if there is none.
Mbarrier& mbarrier_at(const char* instruction, const uint64_t* barrier);

}  // namespace cuda_emulator
