// The inner loop of the tiled kernels: a block of 16 x 16 threads multiplies a[depth,row] by b[depth,column]
// from shared memory; each thread keeps 4 x 4 of the 64 x 64 results in registers.
#pragma once

#include <cstdint>

#include "common_src/problem.h"
#include "cuda_src/tiled/tile_shape.h"

namespace convgrad::cuda {

inline constexpr int kTileSide = 16;                                  // threads along rows, and along columns
inline constexpr int kTileThreads = kTileSide * kTileSide;            // 256
inline constexpr int kEach = kTileRows / kTileSide;                   // rows, and columns, per thread
inline constexpr int kFills = kTileRows * kTileDepth / kTileThreads;  // elements that a thread loads
static_assert(kTileRows == kTileColumns && kTileDepth == kTileSide);

// Elements from one depth to the next. Neighbouring threads also fill a tile at neighbouring depths; this
// padding sends those to different banks (a warp's 16 depths by 2 rows of 4 bytes, or a half-warp's 16 depths
// of 8 bytes).
template <typename Value>
inline constexpr int kPitch = kTileRows + (sizeof(Value) == 4 ? 2 : 1);

template <typename Value>
inline constexpr int kTileElements = kTileDepth * kPitch<Value>;

// A thread's rows are row(0..3) and its columns column(0..3), 16 apart, so that the threads of a warp read
// neighbouring columns of b from different banks, and write neighbouring results.
__device__ inline int tile_row(int j) { return static_cast<int>(threadIdx.x) / kTileSide + j * kTileSide; }
__device__ inline int tile_column(int j) { return static_cast<int>(threadIdx.x) % kTileSide + j * kTileSide; }

template <typename Value>
class TileSum {
 public:
  // Adds one slice of the depth.
  __device__ void multiply_add(const Value* a, const Value* b) {
#pragma unroll
    for (int q = 0; q < kTileDepth; ++q) {
      Value row[kEach], column[kEach];
#pragma unroll
      for (int j = 0; j < kEach; ++j) {
        row[j] = a[q * kPitch<Value> + tile_row(j)];
        column[j] = b[q * kPitch<Value> + tile_column(j)];
      }
#pragma unroll
      for (int j = 0; j < kEach; ++j)
#pragma unroll
        for (int l = 0; l < kEach; ++l) run_[j][l] += row[j] * column[l];
    }
    if (++slices_ % kRun == 0) end_run();
  }

  // Calls visit(row, column, sum) for each of the thread's results.
  template <typename Visit>
  __device__ void finish(Visit visit) {
    end_run();
#pragma unroll
    for (int j = 0; j < kEach; ++j)
#pragma unroll
      for (int l = 0; l < kEach; ++l) visit(tile_row(j), tile_column(l), total_[j][l]);
  }

 private:
  // A run has 1024 terms. Runs are summed separately and then added, so that the rounding error of a long sum
  // grows with the run's length plus the number of runs, not with their product.
  static constexpr int kRun = 1024 / kTileDepth;

  __device__ void end_run() {
#pragma unroll
    for (int j = 0; j < kEach; ++j)
#pragma unroll
      for (int l = 0; l < kEach; ++l) {
        total_[j][l] += run_[j][l];
        run_[j][l] = 0;
      }
  }

  Value total_[kEach][kEach] = {};
  Value run_[kEach][kEach] = {};
  int slices_ = 0;
};

}  // namespace convgrad::cuda
