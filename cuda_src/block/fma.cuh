// Computes y[row,column] += sum over depth of a[row,depth] * b[column,depth] in full f32 with fused
// multiply-adds. Each thread keeps a square of the tile in registers and reads 16 bytes at a time.
//
// For a K-major operand a read is four depths of one row, and a thread's rows are a step apart so that
// neighbouring threads read neighbouring lines. For an MN-major operand a read is four rows of one depth.
#pragma once

#include "common_src/major.h"
#include "cuda_src/block/math.cuh"
#include "cuda_src/block/store.cuh"

namespace convgrad::cuda {

template <typename Tile, Major kMajorA, Major kMajorB>
class GemmSum<Math::kF32, Tile, kMajorA, kMajorB> {
 public:
  __device__ void multiply_add(const float* a, const float* b) {
#pragma unroll
    for (int depth = 0; depth < kSliceDepth<float>; depth += 4) {
      float row[kM][4], column[kN][4];
      read<kM, kMajorA, Tile::kRows>(row, a, row_thread(), depth);
      read<kN, kMajorB, Tile::kColumns>(column, b, column_thread(), depth);
#pragma unroll
      for (int q = 0; q < 4; ++q)
#pragma unroll
        for (int m = 0; m < kM; ++m)
#pragma unroll
          for (int n = 0; n < kN; ++n) run_[m][n] += row[m][q] * column[n][q];
    }
    if (++slices_ % kRun == 0) end_run();
  }

  template <typename Rows>
  __device__ void store(const Rows& rows) {
    end_run();
    float bias[kN];
#pragma unroll
    for (int n = 0; n < kN; ++n) bias[n] = rows.bias_of(place<kMajorB>(column_thread(), n));
#pragma unroll
    for (int m = 0; m < kM; ++m)
#pragma unroll
      for (int n = 0; n < kN; ++n)
        rows.store_one(place<kMajorA>(row_thread(), m), place<kMajorB>(column_thread(), n), total_[m][n],
                       bias[n]);
  }

 private:
  // 16 threads along rows by 16 along columns; a warp covers 4 by 8 of them.
  static constexpr int kSide = 16;
  static constexpr int kM = Tile::kRows / kSide, kN = Tile::kColumns / kSide;
  static_assert(kM % 4 == 0 && kN % 4 == 0 && kSide * kSide == kGemmThreads);

  __device__ static int row_thread() {
    return static_cast<int>(threadIdx.x) % 32 / 8 + static_cast<int>(threadIdx.x) / 64 * 4;
  }
  __device__ static int column_thread() {
    return static_cast<int>(threadIdx.x) % 8 + static_cast<int>(threadIdx.x) / 32 % 2 * 8;
  }

  // Returns a thread's j-th row (or column).
  template <Major kMajor>
  __device__ static int place(int thread, int j) {
    return kMajor == Major::kK ? thread + j * kSide : j / 4 * 4 * kSide + thread * 4 + j % 4;
  }

  // Reads values[j][q] = tile[place(j), depth + q].
  template <int kCount, Major kMajor, int kRows>
  __device__ static void read(float (&values)[kCount][4], const float* tile, int thread, int depth) {
    using Operand = OperandTile<float, kRows, kMajor>;
    if constexpr (kMajor == Major::kK) {
#pragma unroll
      for (int j = 0; j < kCount; ++j) {
        const float4 four = load_shared(
            reinterpret_cast<const float4*>(tile + Operand::element(place<kMajor>(thread, j), depth)));
        values[j][0] = four.x, values[j][1] = four.y, values[j][2] = four.z, values[j][3] = four.w;
      }
    } else {
#pragma unroll
      for (int q = 0; q < 4; ++q)
#pragma unroll
        for (int j = 0; j < kCount; j += 4) {
          const float4 four = load_shared(
              reinterpret_cast<const float4*>(tile + Operand::element(place<kMajor>(thread, j), depth + q)));
          values[j][q] = four.x, values[j + 1][q] = four.y, values[j + 2][q] = four.z,
          values[j + 3][q] = four.w;
        }
    }
  }

  // A run has 1024 terms. Runs are summed separately and then added, so that the rounding error of a long sum
  // grows with the run's length plus the number of runs, not with their product.
  static constexpr int kRun = 1024 / kSliceDepth<float>;

  __device__ void end_run() {
#pragma unroll
    for (int m = 0; m < kM; ++m)
#pragma unroll
      for (int n = 0; n < kN; ++n) {
        total_[m][n] += run_[m][n];
        run_[m][n] = 0;
      }
  }

  float total_[kM][kN] = {}, run_[kM][kN] = {};
  int slices_ = 0;
};

}  // namespace convgrad::cuda
