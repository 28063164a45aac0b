// Dot products with lanes along the source channels: one vector of sums per pixel and channel, whose lanes
// are added at the end. The filter is read in place if its rows run along the source channels too, as dgrad's
// do.
#include "cpu_src/microkernels/dot_tile.h"

#include <type_traits>
#include <utility>

#include "cpu_src/microkernels/simd.h"
#include "cpu_src/microkernels/tile_operand.h"

namespace convgrad::cpu::CONVGRAD_ISA {
namespace {

// Adds half of the lanes to the other half until one is left: a fixed order.
template <typename S>
CONVGRAD_INLINE S sum_of_lanes(Vec<S> v) {
  using Index = std::conditional_t<sizeof(S) == 4, int32_t, int64_t>;
  CONVGRAD_UNROLL
  for (int half = kLanes<S> / 2; half > 0; half /= 2) {
    typename VecOf<Index>::type src{};
    CONVGRAD_UNROLL
    for (int lane = 0; lane < kLanes<S>; ++lane) src[lane] = lane ^ half;
    v += permute(v, src);
  }
  return v[0];
}

// Not inlined: one copy serves every tile.
template <typename S>
__attribute__((noinline)) void add_sums_of_lanes(const Vec<S>* vectors, int count, S* sums, bool add) {
  for (int at = 0; at < count; ++at) {
    const S total = sum_of_lanes<S>(vectors[at]);
    sums[at] = add ? sums[at] + total : total;
  }
}

template <typename T, int kChannels, int kPixels>
void dot_tile(const T* source, const T* filter, const Segment* segments, int64_t count, int64_t source_step,
              int64_t filter_step, Sum<T>* sums, bool add) {
  using S = Sum<T>;
  Vec<S> sum[kPixels][kChannels];
  CONVGRAD_UNROLL
  for (int m = 0; m < kPixels; ++m) {
    CONVGRAD_UNROLL
    for (int k = 0; k < kChannels; ++k) sum[m][k] = Vec<S>{};
  }
  // Adds the products of one vector, which `read` loads.
  const auto step = [&](const T* x, const T* w, const auto& read) __attribute__((always_inline)) {
    decltype(read(w)) w_k[kChannels];
    CONVGRAD_UNROLL
    for (int k = 0; k < kChannels; ++k) w_k[k] = read(w + k * filter_step);
    CONVGRAD_UNROLL
    for (int m = 0; m < kPixels; ++m) {
      const auto x_m = read(x + m * source_step);
      CONVGRAD_UNROLL
      for (int k = 0; k < kChannels; ++k) add_product(sum[m][k], x_m, w_k[k]);
    }
  };
  constexpr int kNumbers = AlongSum<T>::numbers;
  for (const Segment* segment = segments; segment < segments + count; ++segment) {
    const T* x = source + segment->source;
    const T* w = filter + segment->filter;
    int64_t left = segment->length;
    for (; left >= kNumbers; left -= kNumbers, x += kNumbers, w += kNumbers)
      step(x, w, [](const T* src) __attribute__((always_inline)) { return AlongSum<T>::load(src); });
    if (left > 0) {
      step(x, w,
           [&](const T* src) __attribute__((always_inline)) { return AlongSum<T>::load_some(src, left); });
    }
  }
  Vec<S> vectors[kPixels * kChannels];  // a copy, so that the sums themselves stay in registers
  CONVGRAD_UNROLL
  for (int m = 0; m < kPixels; ++m) {
    CONVGRAD_UNROLL
    for (int k = 0; k < kChannels; ++k) vectors[m * kChannels + k] = sum[m][k];
  }
  add_sums_of_lanes<S>(vectors, kPixels * kChannels, sums, add);
}

// Sums, the filter's vectors and one source must fit into the registers. Numbers of 16 bits cost a conversion
// each, next to which loading the filter for more pixels at once saves little.
template <typename T>
constexpr int most_dot_pixels(int channels) {
  const int fit = (kTileRegisters<Sum<T>> - 1 - channels) / channels;
  const int most = AlongSum<T>::kConverts ? kMaxDotPixels / 2 + 1 : kMaxDotPixels;
  return fit < most ? fit : most;
}

template <typename T, int kChannels, int... kPixels>
constexpr void fill_dot(DotTiles<T>& tiles, std::integer_sequence<int, kPixels...>) {
  tiles.most_pixels[kChannels] = sizeof...(kPixels);
  ((tiles.tile[kChannels][kPixels + 1] = &dot_tile<T, kChannels, kPixels + 1>), ...);
}

template <typename T>
constexpr DotTiles<T> all_dot_tiles() {
  DotTiles<T> tiles = {};
  fill_dot<T, 1>(tiles, std::make_integer_sequence<int, most_dot_pixels<T>(1)>());
  fill_dot<T, 2>(tiles, std::make_integer_sequence<int, most_dot_pixels<T>(2)>());
  fill_dot<T, 3>(tiles, std::make_integer_sequence<int, most_dot_pixels<T>(3)>());
  fill_dot<T, 4>(tiles, std::make_integer_sequence<int, most_dot_pixels<T>(4)>());
  return tiles;
}

template <typename T>
constexpr DotTiles<T> kDotTiles = all_dot_tiles<T>();

}  // namespace

#if !defined(CONVGRAD_BF16_DOTS)
template <>
const DotTiles<float>& dot_tiles<float>() {
  return kDotTiles<float>;
}
template <>
const DotTiles<double>& dot_tiles<double>() {
  return kDotTiles<double>;
}
template <>
const DotTiles<Float16>& dot_tiles<Float16>() {
  return kDotTiles<Float16>;
}
#endif
template <>
const DotTiles<BFloat16>& dot_tiles<BFloat16>() {
  return kDotTiles<BFloat16>;
}

}  // namespace convgrad::cpu::CONVGRAD_ISA
