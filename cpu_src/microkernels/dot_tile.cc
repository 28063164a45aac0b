// Dot products with lanes along the source channels: one vector of sums per pixel and channel, whose lanes
// are added at the end. The filter is read in place if its rows run along the source channels too, as dgrad's
// do.
#include "cpu_src/microkernels/dot_tile.h"

#include <type_traits>
#include <utility>

#include "cpu_src/microkernels/simd.h"

namespace convgrad::cpu::CONVGRAD_ISA {
namespace {

// Loads the first `count` lanes of stored numbers; the others are zero.
template <typename T>
CONVGRAD_INLINE Vec<Sum<T>> load_some(const T* src, int64_t count) {
  if constexpr (std::is_same_v<T, Sum<T>>) {
    return load_first(src, count);
  } else {
    Vec<Sum<T>> v{};
    for (int64_t lane = 0; lane < count; ++lane) v[lane] = widen(src[lane]);
    return v;
  }
}

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

template <typename T, int kChannels, int kPixels>
void tile(const T* source, const T* filter, const Segment* segments, int64_t count, int64_t source_step,
          int64_t filter_step, Sum<T>* sums, bool add) {
  using S = Sum<T>;
  Vec<S> sum[kPixels][kChannels];
  CONVGRAD_UNROLL
  for (int m = 0; m < kPixels; ++m) {
    CONVGRAD_UNROLL
    for (int k = 0; k < kChannels; ++k) sum[m][k] = Vec<S>{};
  }
  for (const Segment* segment = segments; segment < segments + count; ++segment) {
    const T* x = source + segment->source;
    const T* w = filter + segment->filter;
    int64_t left = segment->length;
    for (; left >= kLanes<S>; left -= kLanes<S>, x += kLanes<S>, w += kLanes<S>) {
      Vec<S> w_k[kChannels];
      CONVGRAD_UNROLL
      for (int k = 0; k < kChannels; ++k) w_k[k] = load(w + k * filter_step);
      CONVGRAD_UNROLL
      for (int m = 0; m < kPixels; ++m) {
        const Vec<S> x_m = load(x + m * source_step);
        CONVGRAD_UNROLL
        for (int k = 0; k < kChannels; ++k) sum[m][k] += x_m * w_k[k];
      }
    }
    if (left > 0) {
      Vec<S> w_k[kChannels];
      CONVGRAD_UNROLL
      for (int k = 0; k < kChannels; ++k) w_k[k] = load_some(w + k * filter_step, left);
      CONVGRAD_UNROLL
      for (int m = 0; m < kPixels; ++m) {
        const Vec<S> x_m = load_some(x + m * source_step, left);
        CONVGRAD_UNROLL
        for (int k = 0; k < kChannels; ++k) sum[m][k] += x_m * w_k[k];
      }
    }
  }
  CONVGRAD_UNROLL
  for (int m = 0; m < kPixels; ++m) {
    CONVGRAD_UNROLL
    for (int k = 0; k < kChannels; ++k) {
      const S total = sum_of_lanes<S>(sum[m][k]);
      sums[m * kChannels + k] = add ? sums[m * kChannels + k] + total : total;
    }
  }
}

// Sums, the filter's vectors and one source must fit into the registers.
constexpr int most_pixels(int channels) {
  const int fit = (kVectorRegisters - 1 - channels) / channels;
  return fit < kMaxDotPixels ? fit : kMaxDotPixels;
}

template <typename T, int kChannels, int... kPixels>
constexpr void fill(DotTiles<T>& tiles, std::integer_sequence<int, kPixels...>) {
  tiles.most_pixels[kChannels] = sizeof...(kPixels);
  ((tiles.tile[kChannels][kPixels + 1] = &tile<T, kChannels, kPixels + 1>), ...);
}

template <typename T>
constexpr DotTiles<T> all_tiles() {
  DotTiles<T> tiles = {};
  fill<T, 1>(tiles, std::make_integer_sequence<int, most_pixels(1)>());
  fill<T, 2>(tiles, std::make_integer_sequence<int, most_pixels(2)>());
  fill<T, 3>(tiles, std::make_integer_sequence<int, most_pixels(3)>());
  fill<T, 4>(tiles, std::make_integer_sequence<int, most_pixels(4)>());
  return tiles;
}

template <typename T>
constexpr DotTiles<T> kTiles = all_tiles<T>();

}  // namespace

template <>
const DotTiles<float>& dot_tiles<float>() {
  return kTiles<float>;
}
template <>
const DotTiles<double>& dot_tiles<double>() {
  return kTiles<double>;
}
template <>
const DotTiles<BFloat16>& dot_tiles<BFloat16>() {
  return kTiles<BFloat16>;
}
template <>
const DotTiles<Float16>& dot_tiles<Float16>() {
  return kTiles<Float16>;
}

}  // namespace convgrad::cpu::CONVGRAD_ISA
