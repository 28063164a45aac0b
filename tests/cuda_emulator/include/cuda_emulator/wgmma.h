// wgmma: a warpgroup multiplies tiles of shared memory, asynchronously.
//
// From an instruction's issue to the wait that covers its group, the sums are poison: all bits set, NaN. The
// operands are read twice, when the first thread issues the instruction and when the first thread's wait for
// it returns; what differs counts as NaN. So it shows if a tile comes too late or is overwritten too early.
// Order and rounding of the additions are those of mma.sync in matrix.h.
//
// The launch fails if sums are changed while they are poison, or changed without a fence before they are used
// again, if the threads of a warpgroup issue different instructions, if a descriptor is not one of the
// 128-byte swizzle or an operand not in the block's shared memory, and if a thread ends without waiting.
#pragma once

#include <cstdint>

namespace cuda_emulator {

struct Wgmma {
  uint64_t a, b;
  unsigned columns;
  bool f16;                   // or bf16
  bool a_by_rows, b_by_rows;  // which index is contiguous: the rows (of b: columns), or the depth
};

uint64_t wgmma_operand(const void* shared, int leading_bytes, int stride_bytes);
void wgmma_fence();
void wgmma_commit();
// Of `d`, the thread's sums: delivers them, if all of their instructions are covered.
void wgmma_wait(unsigned pending_groups, float* d);
void wgmma(const Wgmma&, float* d);

}  // namespace cuda_emulator
