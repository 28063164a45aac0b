// Emulates cp.async. A copy's source is read when it is issued; its bytes arrive at the wait that covers it,
// and until then the destination is poison: all bits set, NaN in every floating type. So a missing wait is
// detected, and so is a copy into a tile that another thread still reads.
#pragma once

#include <cstddef>

namespace cuda_emulator {

// The launch fails if an address is not a multiple of `bytes`, if the destination is not in the block's
// shared memory, or if the thread ends before it has waited for the copy.
void cp_async(void* shared, const void* global, size_t bytes, bool valid);
void cp_async_commit();
void cp_async_wait(unsigned pending_groups);

}  // namespace cuda_emulator
