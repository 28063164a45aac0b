// The emulator's content of a tensor map's 128 bytes.
#pragma once

#include <cstdint>
#include <cstring>

namespace cuda_emulator {

inline constexpr int kMaxRank = 5;
inline constexpr uint32_t kTiledMap = 0x54696c65, kIm2colMap = 0x496d3263;  // anything else is not a map

// Innermost dimension first.
struct EncodedMap {
  uint32_t kind;
  int32_t rank;
  const unsigned char* base;
  uint64_t stride[kMaxRank - 1];  // bytes from one index to the next, for dimensions from 1 on
  uint32_t last[kMaxRank];        // the largest index, because a size may be 2^32
  uint16_t box[kMaxRank];         // tiled; in im2col mode channels and pixels
  int16_t lower[3], upper[3];     // of base pixels, W first; upper is relative to the largest index
  uint8_t step[3];
  uint8_t element_bytes;

  int64_t size(int dimension) const { return int64_t{last[dimension]} + 1; }
  bool is_im2col() const { return kind == kIm2colMap; }
  int spatial() const { return rank - 2; }
  int64_t first_pixel(int axis) const { return lower[axis]; }
  int64_t last_pixel(int axis) const { return int64_t{last[axis + 1]} + upper[axis]; }
  int64_t lines() const {
    int64_t lines = 1;
    for (int d = 1; d < (is_im2col() ? 2 : rank); ++d) lines *= box[d];
    return lines;
  }
  int64_t line_bytes() const { return int64_t{box[0]} * element_bytes; }
};
static_assert(sizeof(EncodedMap) <= 128);

}  // namespace cuda_emulator
