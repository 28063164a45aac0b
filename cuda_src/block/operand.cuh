// One operand's slice of the depth in shared memory for the multistage kernels: lines of 16-byte chunks, one
// chunk per cp.async. A line runs along the index that is contiguous in memory:
//
//     K-major    a line is a row of the operand (a pixel of x, a column of the filter), 64 bytes of depth
//     MN-major   a line is one depth, with all rows of the tile side by side
//
// The chunks of a line are permuted by the line's number (swizzled), so that the reads of a warp, which take
// the same chunk of neighbouring lines, meet different banks.
#pragma once

#include <cstdint>

#include "common_src/major.h"
#include "cuda_src/arch/ptx.cuh"

namespace convgrad::cuda {

template <typename Stored>
inline constexpr int kChunk = 16 / sizeof(Stored);  // elements
template <typename Stored>
inline constexpr int kSliceDepth = 64 / sizeof(Stored);  // the depth of a slice, in elements

template <typename Stored, int kRows, Major kMajor>
struct OperandTile {
  static constexpr bool kIsKMajor = kMajor == Major::kK;
  static constexpr int kDepth = kSliceDepth<Stored>;
  static constexpr int kLineChunks = (kIsKMajor ? kDepth : kRows) / kChunk<Stored>;
  static constexpr int kChunks = (kIsKMajor ? kRows : kDepth) * kLineChunks;
  static constexpr int kElements = kRows * kDepth;

  // Returns the element offset of a chunk.
  __device__ static int chunk(int line, int chunk) {
    return (line * kLineChunks + (chunk ^ swizzle(line))) * kChunk<Stored>;
  }
  __device__ static int element(int row, int depth) {
    const int line = kIsKMajor ? row : depth, at = kIsKMajor ? depth : row;
    return chunk(line, at / kChunk<Stored>) + at % kChunk<Stored>;
  }

 private:
  __device__ static int swizzle(int line) {
    // Lines of 64 bytes: two lines fill all banks, so every second line advances the swizzle; by 2 chunks
    // first, because the reads of f64 take two chunks of a line at once.
    if (kIsKMajor) return (line & 2) | ((line >> 2) & 1);
    // ldmatrix reads one chunk of eight lines; two lines of 64 bytes fill all banks. Wider types read two
    // chunks of four lines.
    if (sizeof(Stored) == 2) return kLineChunks == 4 ? line >> 1 & 3 : line & 7;
    return (line & 3) * 2;
  }
};

}  // namespace convgrad::cuda
