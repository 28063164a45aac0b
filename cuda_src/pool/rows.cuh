// Assigns results of pooling to threads: all results, or cells of them, as rows of vectors.
//
// A row is everything along the innermost axis, position by position and vector by vector, so neighbouring
// threads read and write neighbouring memory, however few channels a position has. A block is a rectangle
// over rows; neighbouring blocks share the overlap of their windows in the cache. Everything within an image
// is counted in 32 bits (plan.h), the start of an image in 64.
#pragma once

#include <cuda_runtime.h>

#include <algorithm>
#include <cstdint>
#include <utility>

#include "common_src/integers.h"
#include "common_src/problem.h"
#include "cuda_src/divisor.cuh"

namespace convgrad::cuda {

inline constexpr int kPoolThreads = 256;

struct RowPlace {
  int32_t n, at0, at1, at2;
  int32_t vector;  // within the position
};

struct PoolRows {
  int32_t rows, row_vectors;  // how many, and vectors per row
  Divisor position_vectors, size1, size0, blocks_across;
  int32_t across, down;  // threads of a block along a row, and over rows

  // A block takes four rows if windows overlap, so that it reads most of its source once.
  PoolRows(int64_t batch, int64_t extent0, int64_t extent1, int64_t extent2, int64_t vectors, bool overlap)
      : rows(static_cast<int32_t>(batch * extent0 * extent1)),
        row_vectors(static_cast<int32_t>(extent2 * vectors)),
        position_vectors(vectors),
        size1(extent1),
        size0(extent0) {
    across = 1;
    while (across < row_vectors && across < (overlap ? kPoolThreads / 4 : kPoolThreads)) across *= 2;
    down = kPoolThreads / across;
    blocks_across = Divisor(tiles_over(row_vectors, across));
  }

  int64_t blocks() const { return int64_t{blocks_across.value()} * tiles_over(rows, down); }

  // Returns false for threads past the ends.
  __device__ __forceinline__ bool find(RowPlace& place) const {
    int32_t column = static_cast<int32_t>(blockIdx.x);
    int32_t row = blocks_across.split(column) * down + static_cast<int32_t>(threadIdx.y);
    column = column * across + static_cast<int32_t>(threadIdx.x);
    if (row >= rows || column >= row_vectors) return false;
    place.at2 = position_vectors.split(column);
    place.vector = column;
    int32_t outer = size1.split(row);
    place.at1 = row;
    place.n = size0.split(outer);
    place.at0 = outer;
    return true;
  }

  // Returns the number of the place's vector among all vectors of all rows, or of the same place in image n
  // of another array of this shape.
  __device__ __forceinline__ int64_t number(const RowPlace& place, int32_t n) const {
    const int32_t row = (n * size0.value() + place.at0) * size1.value() + place.at1;
    return int64_t{row} * row_vectors + place.at2 * position_vectors.value() + place.vector;
  }
  __device__ __forceinline__ int64_t number(const RowPlace& place) const { return number(place, place.n); }
};

inline PoolRows output_rows(const PoolProblem& p, int lanes) {
  const Axis& axis = p.axis[1];
  return PoolRows(p.batch, p.axis[0].output, axis.output, p.axis[2].output, p.channels / lanes,
                  (axis.taps - 1) * axis.filter_dilation >= axis.stride);
}

inline PoolRows input_rows(const PoolProblem& p, int lanes) {
  return PoolRows(p.batch, p.axis[0].input, p.axis[1].input, p.axis[2].input, p.channels / lanes,
                  p.axis[1].taps > 1);
}

template <typename... Params, typename... Args>
cudaError_t launch_rows(void (*kernel)(Params...), const PoolRows& rows, cudaStream_t stream,
                        Args&&... args) {
  cudaLaunchConfig_t config = {};
  config.gridDim = dim3(static_cast<unsigned>(rows.blocks()));
  config.blockDim = dim3(static_cast<unsigned>(rows.across), static_cast<unsigned>(rows.down));
  config.stream = stream;
  return cudaLaunchKernelEx(&config, kernel, std::forward<Args>(args)...);
}

}  // namespace convgrad::cuda
