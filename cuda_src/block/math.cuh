// The types of the multistage kernels' arithmetics, and the tile of a product that a block computes.
#pragma once

#include "common_src/major.h"
#include "common_src/number.h"
#include "cuda_src/block/arithmetic.h"
#include "cuda_src/block/operand.cuh"

namespace convgrad::cuda {

template <Math kMath>
struct MathTypes {
  using Stored = float;
  using Value = float;
};
template <>
struct MathTypes<Math::kBF16> {
  using Stored = BFloat16;
  using Value = float;
};
template <>
struct MathTypes<Math::kF16> {
  using Stored = Float16;
  using Value = float;
};
template <>
struct MathTypes<Math::kF64> {
  using Stored = double;
  using Value = double;
};

inline constexpr int kGemmThreads = 256, kGemmWarps = kGemmThreads / 32;

// A block's tile of the result, divided among its warps.
template <int kRows_, int kColumns_, int kWarpsAlongRows>
struct GemmTile {
  static constexpr int kRows = kRows_, kColumns = kColumns_;
  static constexpr int kWarpRows = kRows / kWarpsAlongRows;
  static constexpr int kWarpColumns = kColumns / (kGemmWarps / kWarpsAlongRows);

  __device__ static int first_row() {
    return static_cast<int>(threadIdx.x) / 32 % kWarpsAlongRows * kWarpRows;
  }
  __device__ static int first_column() {
    return static_cast<int>(threadIdx.x) / 32 / kWarpsAlongRows * kWarpColumns;
  }
};

// The sum over one block's tile. mma.cuh, f64.cuh and fma.cuh define its three kinds, each with
//
//     multiply_add(a, b)    adds one slice of the depth, from two operand tiles
//     store(rows)           see store.cuh
template <Math kMath, typename Tile, Major kMajorA, Major kMajorB>
class GemmSum;

}  // namespace convgrad::cuda
