// Channels of x times channels of dy in registers: an outer product per position.
#include "cpu_src/microkernels/filter_tile.h"

#include <utility>

#include "cpu_src/microkernels/simd.h"

namespace convgrad::cpu::CONVGRAD_ISA {
namespace {

// A sum waits for the one before it, so small tiles process several positions at once, each with sums of its
// own.
constexpr int positions_at_once(int sums) { return sums <= 2 ? 4 : sums <= 5 ? 2 : 1; }

template <typename S, int kVectors, int kChannels>
void filter_tile(const S* x_data, const S* dy_data, const PositionRow* positions, int64_t rows, int64_t count,
                 int64_t x_step, int64_t dy_step, S* sums) {
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
  const auto add = [&](const S* x, const S* dy, Vec<S>(&dst)[kChannels][kVectors])
                       __attribute__((always_inline)) {
                         Vec<S> dy_k[kVectors];
                         CONVGRAD_UNROLL
                         for (int v = 0; v < kVectors; ++v) dy_k[v] = load(dy + v * kLanes<S>);
                         CONVGRAD_UNROLL
                         for (int c = 0; c < kChannels; ++c) {
                           const Vec<S> x_c = broadcast(x[c]);
                           CONVGRAD_UNROLL
                           for (int v = 0; v < kVectors; ++v)
                             dst[c][v] += x_c * dy_k[v];  // dw[r,c,k] += x[n,i,c] * dy[n,o,k]
                         }
                       };
  for (const PositionRow* row = positions; row < positions + rows; ++row) {
    const S* x = x_data + row->x;
    const S* dy = dy_data + row->dy;
    int64_t left = count;
    for (; left >= kAtOnce; left -= kAtOnce) {
      CONVGRAD_UNROLL
      for (int u = 0; u < kAtOnce; ++u) add(x + u * x_step, dy + u * dy_step, sum[u]);
      x += kAtOnce * x_step;
      dy += kAtOnce * dy_step;
    }
    if constexpr (kAtOnce > 1) {
      for (; left > 0; --left, x += x_step, dy += dy_step) add(x, dy, sum[0]);
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
template <typename S>
constexpr int most_channels(int vectors) {
  const int fit = (kTileRegisters<S> - 1 - vectors) / vectors;
  return fit < kMaxFilterChannels ? fit : kMaxFilterChannels;
}

template <typename S, int kVectors, int... kChannels>
constexpr void fill_filter(FilterTiles<S>& tiles, std::integer_sequence<int, kChannels...>) {
  tiles.most_channels[kVectors] = sizeof...(kChannels);
  ((tiles.tile[kVectors][kChannels + 1] = &filter_tile<S, kVectors, kChannels + 1>), ...);
}

template <typename S>
constexpr FilterTiles<S> all_filter_tiles() {
  FilterTiles<S> tiles = {};
  tiles.lanes = kLanes<S>;
  fill_filter<S, 1>(tiles, std::make_integer_sequence<int, most_channels<S>(1)>());
  fill_filter<S, 2>(tiles, std::make_integer_sequence<int, most_channels<S>(2)>());
  fill_filter<S, 3>(tiles, std::make_integer_sequence<int, most_channels<S>(3)>());
  fill_filter<S, 4>(tiles, std::make_integer_sequence<int, most_channels<S>(4)>());
  return tiles;
}

template <typename S>
constexpr FilterTiles<S> kFilterTiles = all_filter_tiles<S>();

}  // namespace

template <>
const FilterTiles<float>& filter_tiles<float>() {
  return kFilterTiles<float>;
}
template <>
const FilterTiles<double>& filter_tiles<double>() {
  return kFilterTiles<double>;
}

}  // namespace convgrad::cpu::CONVGRAD_ISA
