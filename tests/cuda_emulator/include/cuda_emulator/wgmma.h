// Emulates wgmma: a warpgroup multiplies tiles of shared memory asynchronously.
//
// From an instruction's issue to the wait that covers its group, the sums are poison: all bits set, NaN. The
// operands are read twice, when the first thread issues the instruction and when the first thread's wait for
// it returns; numbers that differ count as NaN. So a tile that arrives too late or is overwritten too early
// is detected. Order and rounding of the additions are those of mma.sync in matrix.h.
//
// The launch fails if sums are changed while they are poison, or changed without a fence before they are used
// again, if the threads of a warpgroup issue different instructions, if a descriptor does not have the
// 128-byte swizzle, if an operand is not in the block's shared memory, or if a thread ends without waiting.
#pragma once

#include <cstdint>

namespace cuda_emulator {

enum class WgmmaType { kBF16, kF16, kTF32 };

struct Wgmma {
  WgmmaType type;
  unsigned columns;
  uint64_t a, b;              // descriptors; a is 0 if it is in registers
  bool a_by_rows, b_by_rows;  // true if the rows (of b: columns) are contiguous (MN-major), false if the
                              // depth is (K-major)
};

uint64_t wgmma_operand(const void* shared, int leading_bytes, int stride_bytes);
void wgmma_fence();
void wgmma_commit();
// A wait for all groups delivers the thread's sums in `d`.
void wgmma_wait(unsigned pending_groups, float* d);
// `a_registers`: four registers of the calling thread, read at issue, or null.
void wgmma(const Wgmma&, const uint32_t* a_registers, float* d);

}  // namespace cuda_emulator
