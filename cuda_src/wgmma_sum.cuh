// A warpgroup's 64 rows by kColumns columns of a product of 16-bit numbers, summed in registers by wgmma.
//
// Operands are tiles of swizzled lines of 64 numbers, as TMA brings them: along the depth (kDepth), one line
// a row, or along the rows (kRows), one line a depth and 64 rows side by side.
#pragma once

#include <cstdint>

#include "cuda_src/gemm_store.cuh"
#include "cuda_src/ptx_sm90.cuh"
#include "cuda_src/wgmma_plan.h"

namespace convgrad::cuda {

template <typename Stored, int kColumns, Major kA, Major kB>
class WgmmaSum {
 public:
  // One more slice of the depth; its products are under way until waited for.
  __device__ __forceinline__ void multiply_add(const Stored* a, const Stored* b) {
    wgmma_fence();
#pragma unroll
    for (int depth = 0; depth < kWgmmaDepth; depth += kStep)
      wgmma<Stored, kColumns, kA, kB>(sum_, operand<kA>(a, depth), operand<kB>(b, depth));
    wgmma_commit();
  }

  template <int kPending>
  __device__ __forceinline__ void wait() {
    wgmma_wait<kPending>(sum_);
  }

  __device__ __forceinline__ void clear() {
#pragma unroll
    for (float& value : sum_) value = 0;
  }

  // See gemm_store.cuh; rows are 0 to 63.
  template <typename Rows>
  __device__ __forceinline__ void store(const Rows& rows) const {
    const int lane = static_cast<int>(threadIdx.x) % 32, warp = static_cast<int>(threadIdx.x) / 32 % 4;
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      float values[kColumns / 8][2];
#pragma unroll
      for (int n = 0; n < kColumns / 8; ++n) {
        values[n][0] = sum_[4 * n + 2 * half];
        values[n][1] = sum_[4 * n + 2 * half + 1];
      }
      rows.store(16 * warp + 8 * half + lane / 4, 0, values);
    }
  }

 private:
  static constexpr int kStep = 16;                         // the depth of a wgmma
  static constexpr int kLine = 64, kAtom = 8 * kLine * 2;  // eight lines, in bytes

  template <Major kMajor>
  __device__ __forceinline__ static uint64_t operand(const Stored* tile, int depth) {
    if constexpr (kMajor == Major::kDepth)
      return wgmma_operand(tile + depth, 16, kAtom);  // no second line along the depth
    else
      return wgmma_operand(tile + depth * kLine, kWgmmaDepth * kLine * 2, kAtom);
  }

  float sum_[kColumns / 2];
};

}  // namespace convgrad::cuda
