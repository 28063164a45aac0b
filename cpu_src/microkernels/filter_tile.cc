// Channels of x times channels of dy in registers: an outer product per position.
#include "cpu_src/microkernels/filter_tile.h"

#include <utility>

#include "cpu_src/microkernels/simd.h"
#include "cpu_src/microkernels/tile_operand.h"

namespace convgrad::cpu::CONVGRAD_ISA {
namespace {

// A sum waits for the one before it, so small tiles process several positions at once, each with sums of its
// own.
constexpr int positions_at_once(int sums) { return sums <= 2 ? 4 : sums <= 5 ? 2 : 1; }

template <typename X, int kVectors, int kChannels>
void filter_tile(const X* x_data, const X* dy_data, const PositionRow* positions, int64_t rows, int64_t count,
                 int64_t x_step, int64_t dy_step, TileSum<X>* sums) {
  using S = TileSum<X>;
  constexpr bool kPairs = std::is_same_v<X, BFloat16Pair>;
  constexpr int kAtOnce = positions_at_once(kVectors * kChannels);
  Vec<S> sum[kAtOnce][kChannels][kVectors];
  CONVGRAD_UNROLL
  for (int u = 0; u < kAtOnce; ++u) {
    CONVGRAD_UNROLL
    for (int c = 0; c < kChannels; ++c) {
      CONVGRAD_UNROLL
      for (int v = 0; v < kVectors; ++v) sum[u][c][v] = Vec<S>{};
    }
  }
  // Adds a position, or a pair of them: `use` may change what is multiplied.
  const auto add = [&](const X* x, const X* dy, Vec<S>(&dst)[kChannels][kVectors], const auto& use)
                       __attribute__((always_inline)) {
                         Operand<X> dy_k[kVectors];
                         CONVGRAD_UNROLL
                         for (int v = 0; v < kVectors; ++v)
                           dy_k[v] = use(Operand<X>::load(dy + v * kLanes<S>));
                         CONVGRAD_UNROLL
                         for (int c = 0; c < kChannels; ++c) {
                           const Operand<X> x_c = use(Operand<X>::broadcast(x + c));
                           CONVGRAD_UNROLL
                           for (int v = 0; v < kVectors; ++v)
                             add_product(dst[c][v], x_c, dy_k[v]);  // dw[r,c,k] += x[n,i,c] * dy[n,o,k]
                         }
                       };
  const auto all = [](Operand<X> v) __attribute__((always_inline)) { return v; };
  constexpr int kPositions = kPairs ? 2 : 1;
  x_step *= kPositions;
  dy_step *= kPositions;
  for (const PositionRow* row = positions; row < positions + rows; ++row) {
    const X* x = x_data + row->x;
    const X* dy = dy_data + row->dy;
    int64_t left = count / kPositions;
    for (; left >= kAtOnce; left -= kAtOnce) {
      CONVGRAD_UNROLL
      for (int u = 0; u < kAtOnce; ++u) add(x + u * x_step, dy + u * dy_step, sum[u], all);
      x += kAtOnce * x_step;
      dy += kAtOnce * dy_step;
    }
    if constexpr (kAtOnce > 1) {
      for (; left > 0; --left, x += x_step, dy += dy_step) add(x, dy, sum[0], all);
    }
    if constexpr (kPairs) {
      // What follows an odd last position may be infinite, and is not to be multiplied even by zero.
      if (count % 2 != 0)
        add(x, dy, sum[0], [](Operand<X> v) __attribute__((always_inline)) { return v.first(); });
    }
  }
  CONVGRAD_UNROLL
  for (int c = 0; c < kChannels; ++c) {
    CONVGRAD_UNROLL
    for (int v = 0; v < kVectors; ++v) {
      Vec<S> total = sum[0][c][v];
      CONVGRAD_UNROLL
      for (int u = 1; u < kAtOnce; ++u) total += sum[u][c][v];
      S* dst = sums + (c * kVectors + v) * kLanes<S>;
      store(dst, load(dst) + total);
    }
  }
}

// Sums, dy's vectors and one channel of x must fit into the registers.
template <typename X>
constexpr int most_channels(int vectors) {
  const int fit = (kTileRegisters<TileSum<X>> - 1 - vectors) / vectors;
  return fit < kMaxFilterChannels ? fit : kMaxFilterChannels;
}

template <typename X, int kVectors, int... kChannels>
constexpr void fill_filter(FilterTiles<X>& tiles, std::integer_sequence<int, kChannels...>) {
  tiles.most_channels[kVectors] = sizeof...(kChannels);
  ((tiles.tile[kVectors][kChannels + 1] = &filter_tile<X, kVectors, kChannels + 1>), ...);
}

template <typename X>
constexpr FilterTiles<X> all_filter_tiles() {
  FilterTiles<X> tiles = {};
  tiles.lanes = kLanes<TileSum<X>>;
  fill_filter<X, 1>(tiles, std::make_integer_sequence<int, most_channels<X>(1)>());
  fill_filter<X, 2>(tiles, std::make_integer_sequence<int, most_channels<X>(2)>());
  fill_filter<X, 3>(tiles, std::make_integer_sequence<int, most_channels<X>(3)>());
  fill_filter<X, 4>(tiles, std::make_integer_sequence<int, most_channels<X>(4)>());
  return tiles;
}

template <typename X>
constexpr FilterTiles<X> kFilterTiles = all_filter_tiles<X>();

}  // namespace

#if defined(CONVGRAD_BF16_DOTS)
template <>
const FilterTiles<BFloat16Pair>& filter_tiles<BFloat16Pair>() {
  return kFilterTiles<BFloat16Pair>;
}
#else
template <>
const FilterTiles<float>& filter_tiles<float>() {
  return kFilterTiles<float>;
}
template <>
const FilterTiles<double>& filter_tiles<double>() {
  return kFilterTiles<double>;
}
#endif

}  // namespace convgrad::cpu::CONVGRAD_ISA
