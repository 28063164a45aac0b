// One operand's slice of the depth in shared memory, as the multistage kernels keep it: lines of chunks of 16
// bytes, each chunk what one cp.async brings. A line runs along whichever index is contiguous in memory:
//
//     K-major    a line is a row of the operand (a pixel of x, a column of the filter), 64 bytes of depth
//     MN-major   a line is one depth, all rows of the tile side by side
//
// Chunks of a line are permuted by the line's number (swizzled) so that the reads of a warp, which take the
// same chunk of neighbouring lines, meet different banks.
#pragma once

#include <cstdint>

#include "common_src/major.h"
#include "cuda_src/arch/ptx.cuh"

namespace convgrad::cuda {

template <typename Stored>
inline constexpr int kChunk = 16 / sizeof(Stored);  // elements
template <typename Stored>
inline constexpr int kSliceDepth = 64 / sizeof(Stored);  // how deep a slice is

template <typename Stored, int kRows, Major kMajor>
struct OperandTile {
  static constexpr bool kIsKMajor = kMajor == Major::kK;
  static constexpr int kDepth = kSliceDepth<Stored>;
  static constexpr int kLineChunks = (kIsKMajor ? kDepth : kRows) / kChunk<Stored>;
  static constexpr int kChunks = (kIsKMajor ? kRows : kDepth) * kLineChunks;
  static constexpr int kElements = kRows * kDepth;

  // Element offset of a chunk.
  __device__ static int chunk(int line, int chunk) {
    return (line * kLineChunks + (chunk ^ swizzle(line))) * kChunk<Stored>;
  }
  __device__ static int element(int row, int depth) {
    const int line = kIsKMajor ? row : depth, at = kIsKMajor ? depth : row;
    return chunk(line, at / kChunk<Stored>) + at % kChunk<Stored>;
  }

 private:
  __device__ static int swizzle(int line) {
    // Lines of 64 bytes: two fill all banks, so every other line moves on; by 2 chunks first, as the reads of
    // f64 take two chunks of a line at once.
    if (kIsKMajor) return (line & 2) | ((line >> 2) & 1);
    // ldmatrix reads one chunk of eight lines, of which two fill all banks where they have 64 bytes; the
    // wider types two chunks of four.
    if (sizeof(Stored) == 2) return kLineChunks == 4 ? line >> 1 & 3 : line & 7;
    return (line & 3) * 2;
  }
};

}  // namespace convgrad::cuda
