#include "cpu_src/microkernels/grouped_tile.h"

#include <utility>

#include "cpu_src/microkernels/simd.h"

namespace convgrad::cpu::CONVGRAD_ISA {
namespace {

template <typename S, int kPixels>
void grouped_tile(const TapRow<S>* rows, int64_t row_count, int64_t source_at, int64_t filter_at,
                  const int64_t* source_offset, int64_t terms, int64_t filter_step, S* result,
                  int64_t result_step, bool add) {
  Vec<S> sum[kPixels];
  CONVGRAD_UNROLL
  for (int m = 0; m < kPixels; ++m) sum[m] = Vec<S>{};
  for (const TapRow<S>* row = rows; row < rows + row_count; ++row) {
    const S* filter = row->filter + filter_at;
    const S* source = row->source + source_at;
    for (int64_t j = 0; j < terms; ++j) {
      const Vec<S> w = load(filter);
      filter += filter_step;
      const S* x = source + source_offset[j];
      CONVGRAD_UNROLL
      for (int m = 0; m < kPixels; ++m) sum[m] += load(x + m * kLanes<S>) * w;
    }
  }
  CONVGRAD_UNROLL
  for (int m = 0; m < kPixels; ++m) {
    S* dst = result + m * result_step;
    store(dst, add ? load(dst) + sum[m] : sum[m]);
  }
}

template <typename S, int kRows, int kTerms, bool kDense>
void sums(const S* const* source, S* const* sum, int64_t sum_step, int64_t source_step, int64_t any_term_step,
          const S* dy, int64_t dy_step, int64_t pixels) {
  const int64_t term_step = kDense ? kLanes<S> : any_term_step;
  // Few sums would wait for each other, so there are two sets, for even and odd pixels.
  constexpr int kSums = kRows * kTerms, kHalves = kSums < 8 ? 2 : 1;
  Vec<S> part[kHalves][kSums];
  const S* x[kRows];
  CONVGRAD_UNROLL
  for (int r = 0; r < kRows; ++r) {
    x[r] = source[r];
    CONVGRAD_UNROLL
    for (int j = 0; j < kTerms; ++j) {
      part[0][r * kTerms + j] = load(sum[r] + j * sum_step);
      if constexpr (kHalves == 2) part[1][r * kTerms + j] = Vec<S>{};
    }
  }
  const auto pixel = [&](Vec<S>(&dst)[kSums]) __attribute__((always_inline)) {
    const Vec<S> dy_m = load(dy);
    dy += dy_step;
    CONVGRAD_UNROLL
    for (int r = 0; r < kRows; ++r) {
      CONVGRAD_UNROLL
      for (int j = 0; j < kTerms; ++j) dst[r * kTerms + j] += load(x[r] + j * term_step) * dy_m;
      x[r] += source_step;
    }
  };
  int64_t m = 0;
  if constexpr (kHalves == 2) {
    for (; m + 2 <= pixels; m += 2) {
      pixel(part[0]);
      pixel(part[1]);
    }
  }
  for (; m < pixels; ++m) pixel(part[0]);
  CONVGRAD_UNROLL
  for (int r = 0; r < kRows; ++r) {
    CONVGRAD_UNROLL
    for (int j = 0; j < kTerms; ++j) {
      Vec<S> total = part[0][r * kTerms + j];
      if constexpr (kHalves == 2) total += part[1][r * kTerms + j];
      store(sum[r] + j * sum_step, total);
    }
  }
}

template <typename S, int... kPixels>
constexpr void fill_tiles(GroupedTiles<S>& tiles, std::integer_sequence<int, kPixels...>) {
  tiles.most_pixels = sizeof...(kPixels);
  ((tiles.tile[kPixels + 1] = &grouped_tile<S, kPixels + 1>), ...);
}

template <typename S, int kRows, int... kTerms>
constexpr void fill_sums(GroupedTiles<S>& tiles, std::integer_sequence<int, kTerms...>) {
  ((tiles.sums[kRows][kTerms + 1] = &sums<S, kRows, kTerms + 1, false>), ...);
  ((tiles.dense_sums[kRows][kTerms + 1] = &sums<S, kRows, kTerms + 1, true>), ...);
}

template <typename S>
constexpr GroupedTiles<S> all_grouped_tiles() {
  GroupedTiles<S> tiles = {};
  tiles.lanes = kLanes<S>;
  // Besides the sums there is a vector of the filter, and one register to spare.
  constexpr int fit = kTileRegisters<S> - 2 < kMaxGroupedPixels ? kTileRegisters<S> - 2 : kMaxGroupedPixels;
  fill_tiles(tiles, std::make_integer_sequence<int, fit>());
  fill_sums<S, 1>(tiles, std::make_integer_sequence<int, kMaxGroupedSums>());
  fill_sums<S, 2>(tiles, std::make_integer_sequence<int, kMaxGroupedSums / 2>());
  fill_sums<S, 3>(tiles, std::make_integer_sequence<int, kMaxGroupedSums / 3>());
  return tiles;
}

template <typename S>
constexpr GroupedTiles<S> kGroupedTiles = all_grouped_tiles<S>();

}  // namespace

template <>
const GroupedTiles<float>& grouped_tiles<float>() {
  return kGroupedTiles<float>;
}
template <>
const GroupedTiles<double>& grouped_tiles<double>() {
  return kGroupedTiles<double>;
}

}  // namespace convgrad::cpu::CONVGRAD_ISA
