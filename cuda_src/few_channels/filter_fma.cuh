// Sums a filter's gradient in full f32 with fused multiply-adds: see filter_sums.cuh.
#pragma once

#include "common_src/major.h"
#include "cuda_src/few_channels/filter_sums.cuh"

namespace convgrad::cuda {

// A warp's lanes are 4 along slots by 8 along columns.
template <int kColumns>
class FewChannelsFilterSum<Math::kF32, kColumns, false> {
 public:
  using TileB = OperandTile<float, kColumns, Major::kMN>;

  __device__ void find_slots(const FewChannelsProblem& p, int first) {
#pragma unroll
    for (int m = 0; m < kM; ++m) slots_[m] = slot_at<false>(p, first + row(m)).offset;
  }

  __device__ void multiply_add(const FewChannelsProblem& p, const float* patch, const float* dy,
                               const int* windows, int part, int parts, int positions) {
    const int chunk = static_cast<int>(threadIdx.x) % 8;
    for (int octet = part; octet < positions / 8; octet += parts) {
      const float* window = patch + load_shared(windows + octet);
#pragma unroll 2
      for (int position = 0; position < 8; ++position, window += p.step) {
        float b[kN];
#pragma unroll
        for (int n = 0; n < kN; n += 4) {
          const float4 four = load_shared(
              reinterpret_cast<const float4*>(dy + TileB::chunk(octet * 8 + position, chunk + n * 2)));
          b[n] = four.x, b[n + 1] = four.y, b[n + 2] = four.z, b[n + 3] = four.w;
        }
#pragma unroll
        for (int m = 0; m < kM; ++m) {
          const float a = load_shared(window + slots_[m]);
#pragma unroll
          for (int n = 0; n < kN; ++n) run_[m][n] += a * b[n];
        }
      }
    }
  }

  // Runs of about a thousand terms are summed separately and then added: see block/fma.cuh.
  __device__ void end_tile() {
    if (++tiles_ % kRunTiles == 0) end();
  }
  __device__ void end() {
#pragma unroll
    for (int m = 0; m < kM; ++m)
#pragma unroll
      for (int n = 0; n < kN; ++n) {
        total_[m][n] += run_[m][n];
        run_[m][n] = 0;
      }
  }

  template <typename Visit>
  __device__ void for_each_value(Visit visit) {
#pragma unroll
    for (int m = 0; m < kM; ++m)
#pragma unroll
      for (int n = 0; n < kN; ++n) visit(m * kN + n, total_[m][n]);
  }

  template <typename Rows>
  __device__ void store(const Rows& rows) const {
#pragma unroll
    for (int m = 0; m < kM; ++m)
#pragma unroll
      for (int n = 0; n < kN; ++n) rows.store_one(row(m), column(n), total_[m][n], 0.0f);
  }

  static constexpr int kValues = kFewChannelsWarpRows * kColumns / 32;

 private:
  static constexpr int kM = kFewChannelsWarpRows / 4, kN = kColumns / 8, kRunTiles = 8;

  __device__ static int row(int m) { return m * 4 + static_cast<int>(threadIdx.x) % 32 / 8; }
  __device__ static int column(int n) { return n / 4 * 32 + static_cast<int>(threadIdx.x) % 8 * 4 + n % 4; }

  int slots_[kM], tiles_ = 0;
  float total_[kM][kN] = {}, run_[kM][kN] = {};
};

}  // namespace convgrad::cuda
