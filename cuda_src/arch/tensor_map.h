// Tensor maps: descriptions of arrays for the tensor memory accelerator (TMA) of compute capability 9.0, with
// which one instruction of one thread copies a whole tile into shared memory.
//
// Every tile here has lines of at most 128 bytes, stored with the 128-byte swizzle: within each eight lines,
// the 16-byte chunks of line l are permuted by xor with l. Elements outside the array arrive as zeros.
#pragma once

#include <cstdint>

#include "common_src/problem.h"

namespace convgrad::cuda {

// An encoded map. A kernel takes it by value, as a `const __grid_constant__` parameter.
struct alignas(64) TensorMap {
  unsigned char bytes[128];
};

inline constexpr int kMaxTensorRank = 5;

// An array, innermost dimension first; its elements are contiguous.
struct TensorArray {
  DType dtype;
  const void* base;
  int rank;
  int64_t size[kMaxTensorRank];
  int64_t stride_bytes[kMaxTensorRank];  // [0] is not used
};

// A map whose tiles are boxes of neighbouring elements.
struct TiledMap {
  TensorArray array;
  int box[kMaxTensorRank];
};

// A map of activations whose tiles are convolution windows at one tap. The array's dimensions are C, W, H, D,
// N with as many of W, H and D as it has. A tile is `pixels` pixels of `channels` channels. Pixels follow
// each other, W first, through the box of base pixels of every image, which spans lower[a] to size[a] - 1 +
// upper[a] in steps of step[a]; the load adds an offset, the tap's, to each of them.
struct Im2colMap {
  TensorArray array;
  int lower[3], upper[3], step[3];  // of W, H, D
  int channels, pixels;
};

}  // namespace convgrad::cuda
