// The inner loop of wgrad: a tile of dw[c,k] += sum of x[o,c] * dy[o,k] in registers.
#pragma once

#include <cstdint>

#include "cpu_src/isa.h"

namespace convgrad::cpu {

// The start of a row of positions in x and dy, in elements.
struct PositionRow {
  int64_t x, dy;
};

// Adds the products of `rows` rows of `count` positions, x_step and dy_step apart. The tile's channels are
// contiguous in x; the vectors of channels in dy are read whole. `sums` holds the tile, row by row of whole
// vectors.
template <typename S>
using FilterTile = void (*)(const S* x, const S* dy, const PositionRow* positions, int64_t rows,
                            int64_t count, int64_t x_step, int64_t dy_step, S* sums);

inline constexpr int kMaxFilterVectors = 4, kMaxFilterChannels = 28;

template <typename S>
struct FilterTiles {
  int lanes;
  int most_channels[kMaxFilterVectors + 1];                           // of x, by vectors
  FilterTile<S> tile[kMaxFilterVectors + 1][kMaxFilterChannels + 1];  // by vectors and channels of x
};

CONVGRAD_PER_ISA(template <typename S> const FilterTiles<S>& filter_tiles())

}  // namespace convgrad::cpu
