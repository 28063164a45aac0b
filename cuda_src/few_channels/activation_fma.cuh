// Sums a tile's windows in full f32 with fused multiply-adds: see activation_sums.cuh.
#pragma once

#include "cuda_src/few_channels/activation_sums.cuh"

namespace convgrad::cuda {

// Slots are the depth itself. A warp's lanes are 4 along windows by 8 along columns; each takes every fourth
// of the warp's windows.
template <int kColumns>
class FewChannelsSum<Math::kF32, kColumns, false> {
 public:
  template <typename ValueAt>
  __device__ static void prepare(const FewChannelsProblem& p, FewChannelsTables tables, float* filter,
                                 ValueAt value_at) {
    const int thread = static_cast<int>(threadIdx.x);
    for (int slot = thread; slot < p.depth; slot += kFewChannelsThreads)
      tables.depth[slot] = slot_at<false>(p, slot).offset;
    for (int at = thread; at < p.depth * kColumns; at += kFewChannelsThreads)
      filter[at] = value_at(at / kColumns, at % kColumns);
  }

  __device__ void find_windows(const FewChannelsProblem& p) {
#pragma unroll
    for (int m = 0; m < kM; ++m) window_[m] = window_at(p, row(m));
  }

  __device__ void multiply_add(const FewChannelsProblem& p, const float* patch, FewChannelsTables tables,
                               const float* filter) {
#pragma unroll
    for (int m = 0; m < kM; ++m)
#pragma unroll
      for (int n = 0; n < kN; ++n) sum_[m][n] = 0;
    const float* line = filter + column(0);
    for (int depth = 0; depth < p.depth; ++depth, line += kColumns) {
      const float* at = patch + load_shared(tables.depth + depth);
      float b[kN];
#pragma unroll
      for (int n = 0; n < kN; n += 4) {
        const float4 four = load_shared(reinterpret_cast<const float4*>(line + column(n) - column(0)));
        b[n] = four.x, b[n + 1] = four.y, b[n + 2] = four.z, b[n + 3] = four.w;
      }
#pragma unroll
      for (int m = 0; m < kM; ++m) {
        const float a = load_shared(at + window_[m]);
#pragma unroll
        for (int n = 0; n < kN; ++n) sum_[m][n] += a * b[n];
      }
    }
  }

  template <typename Rows>
  __device__ void store(const Rows& rows) const {
#pragma unroll
    for (int m = 0; m < kM; ++m)
#pragma unroll
      for (int n = 0; n < kN; ++n) rows.store_one(row(m), column(n), sum_[m][n], rows.bias_of(column(n)));
  }

 private:
  static constexpr int kM = 16, kN = kColumns / 8;

  __device__ static int row(int m) {
    return static_cast<int>(threadIdx.x) / 32 * 64 + m * 4 + static_cast<int>(threadIdx.x) % 32 / 8;
  }
  __device__ static int column(int n) { return n / 4 * 32 + static_cast<int>(threadIdx.x) % 8 * 4 + n % 4; }

  int window_[kM];
  float sum_[kM][kN];
};

}  // namespace convgrad::cuda
