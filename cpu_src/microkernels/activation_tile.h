// The inner loop of fprop and dgrad: a tile of result[m,k] = sum of source[m,c] * w[c,k] in registers.
#pragma once

#include <cstdint>
#include <type_traits>

#include "cpu_src/bf16_dots.h"
#include "cpu_src/isa.h"

namespace convgrad::cpu {

// A run of terms: `length` consecutive sources of every pixel meet `length` rows of the filter. Offsets are
// in elements, from the tile's first source and the panel's first filter row.
struct Segment {
  int64_t source, filter, length;
};

// How a tile's sums are written: stored, added to what is there, or stored past the caches. The last is for
// results larger than the caches, and needs vectors aligned to their size. Sums of pairs may also be rounded
// to bf16; the result is then an array of BFloat16, and result_step counts these.
enum class Into { kSet, kAdd, kStream, kRounded };

// Computes a tile of pixels by vectors of `lanes` channels. Pixel m's sources begin at source + m *
// source_step, its results at result + m * result_step; filter rows are filter_step apart. X is float, double
// or BFloat16Pair, and all source and filter steps count X.
template <typename X>
using ActivationTile = void (*)(const X* source, const X* filter, const Segment* segments, int64_t count,
                                int64_t source_step, int64_t filter_step, TileSum<X>* result,
                                int64_t result_step, Into into);

inline constexpr int kMaxTileVectors = 4, kMaxTilePixels = 28;

template <typename X>
struct ActivationTiles {
  int lanes;
  int most_pixels[kMaxTileVectors + 1];                             // by vectors
  ActivationTile<X> tile[kMaxTileVectors + 1][kMaxTilePixels + 1];  // by vectors and pixels
};

CONVGRAD_PER_ISA(template <typename X> const ActivationTiles<X>& activation_tiles())
namespace avx512_bf16 {
template <typename X>
const ActivationTiles<X>& activation_tiles();
}

template <typename X>
const ActivationTiles<X>& activation_tiles_of(Isa isa) {
  if constexpr (std::is_same_v<X, BFloat16Pair>)
    return avx512_bf16::activation_tiles<X>();
  else
    return CONVGRAD_FOR_ISA(isa, activation_tiles<X>());
}

}  // namespace convgrad::cpu
