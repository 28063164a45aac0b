// What instructions that name an mbarrier have in common.
#pragma once

#include <cstdint>

#include "mbarriers.h"

namespace cuda_emulator {

// The barrier at this address. Without one the launch fails.
Mbarrier& mbarrier_at(const char* instruction, const uint64_t* barrier);

}  // namespace cuda_emulator
