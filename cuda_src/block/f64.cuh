// Computes y[row,column] += sum over depth of a[row,depth] * b[column,depth] in f64 with mma.sync: 8 rows by
// 8 columns per instruction, 4 deep. A thread holds one number of each operand and two of the result.
#pragma once

#include "common_src/major.h"
#include "cuda_src/block/math.cuh"
#include "cuda_src/block/store.cuh"

namespace convgrad::cuda {

template <typename Tile, Major kMajorA, Major kMajorB>
class GemmSum<Math::kF64, Tile, kMajorA, kMajorB> {
 public:
  using TileA = OperandTile<double, Tile::kRows, kMajorA>;
  using TileB = OperandTile<double, Tile::kColumns, kMajorB>;

  __device__ void multiply_add(const double* a, const double* b) {
    const int row = Tile::first_row() + group(), column = Tile::first_column() + group();
#pragma unroll
    for (int depth = 0; depth < kSliceDepth<double>; depth += 4) {
      double a_value[kM], b_value[kN];
#pragma unroll
      for (int m = 0; m < kM; ++m)
        a_value[m] = load_shared(a + TileA::element(row + 8 * m, depth + in_group()));
#pragma unroll
      for (int n = 0; n < kN; ++n)
        b_value[n] = load_shared(b + TileB::element(column + 8 * n, depth + in_group()));
#pragma unroll
      for (int m = 0; m < kM; ++m)
#pragma unroll
        for (int n = 0; n < kN; ++n) mma_f64_8x8x4(sum_[m][n], a_value[m], b_value[n]);
    }
  }

  template <typename Rows>
  __device__ void store(const Rows& rows) const {
    double bias[kN][2];
    rows.read_bias(Tile::first_column(), bias);
#pragma unroll
    for (int m = 0; m < kM; ++m)
      rows.store(Tile::first_row() + 8 * m + group(), Tile::first_column(), sum_[m], bias);
  }

 private:
  static constexpr int kM = Tile::kWarpRows / 8, kN = Tile::kWarpColumns / 8;

  __device__ static int group() { return static_cast<int>(threadIdx.x) % 32 / 4; }
  __device__ static int in_group() { return static_cast<int>(threadIdx.x) % 4; }

  double sum_[kM][kN][2] = {};
};

}  // namespace convgrad::cuda
