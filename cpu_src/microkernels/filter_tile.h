// The inner loop of wgrad: a tile of dw[c,k] += sum of x[o,c] * dy[o,k] in registers.
#pragma once

#include <cstdint>
#include <type_traits>

#include "cpu_src/bf16_dots.h"
#include "cpu_src/isa.h"

namespace convgrad::cpu {

// The start of a row of positions in x and dy, in elements.
struct PositionRow {
  int64_t x, dy;
};

// Adds the products of `rows` rows of `count` positions, x_step and dy_step apart. The tile's channels are
// contiguous in x; the vectors of channels in dy are read whole. `sums` holds the tile, row by row of whole
// vectors. X is float, double or BFloat16Pair, and all steps count X. A pair holds a position and the next
// one, so every second pair is read; of the last pair of an odd count only the first numbers are multiplied.
template <typename X>
using FilterTile = void (*)(const X* x, const X* dy, const PositionRow* positions, int64_t rows,
                            int64_t count, int64_t x_step, int64_t dy_step, TileSum<X>* sums);

inline constexpr int kMaxFilterVectors = 4, kMaxFilterChannels = 28;

template <typename X>
struct FilterTiles {
  int lanes;
  int most_channels[kMaxFilterVectors + 1];                           // of x, by vectors
  FilterTile<X> tile[kMaxFilterVectors + 1][kMaxFilterChannels + 1];  // by vectors and channels of x
};

CONVGRAD_PER_ISA(template <typename X> const FilterTiles<X>& filter_tiles())
namespace avx512_bf16 {
template <typename X>
const FilterTiles<X>& filter_tiles();
}

template <typename X>
const FilterTiles<X>& filter_tiles_of(Isa isa) {
  if constexpr (std::is_same_v<X, BFloat16Pair>)
    return avx512_bf16::filter_tiles<X>();
  else
    return CONVGRAD_FOR_ISA(isa, filter_tiles<X>());
}

}  // namespace convgrad::cpu
