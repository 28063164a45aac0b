// Emulates copies by the tensor memory accelerator, with the 128-byte swizzle. A copy reads its source as
// late as possible: when its bytes arrive, at a random moment after its issue, and complete on the barrier.
// Until then the destination is poison, all bits set.
//
// The launch fails if the map is not of the required kind, if the destination is not a multiple of 128 or not
// in the block's shared memory, if the barrier is not initialised or not fenced, if an im2col copy does not
// begin at a base pixel or its offset does not fit the instruction, or if a block ends before its copies.
#pragma once

#include <cstdint>

namespace cuda_emulator {

void tma_prefetch(const void* map);
void tma_load(void* shared, const void* map, uint64_t* barrier, int rank, const int* at);
void tma_load_im2col(void* shared, const void* map, uint64_t* barrier, int rank, const int* at,
                     const int* offset);

}  // namespace cuda_emulator
