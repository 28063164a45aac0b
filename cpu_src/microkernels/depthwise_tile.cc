// Where taps are neighbours, a source is loaded once for all taps of its row; elsewhere again for every tap,
// from the first-level cache.
#include "cpu_src/microkernels/depthwise_tile.h"

#include <type_traits>
#include <utility>

#include "cpu_src/microkernels/simd.h"

namespace convgrad::cpu::CONVGRAD_ISA {
namespace {

template <bool kWhole, typename T>
CONVGRAD_INLINE Vec<Sum<T>> load_channels(const T* src, int64_t count) {
  if constexpr (kWhole)
    return load(src);
  else
    return load_some(src, count);
}

template <bool kWhole, typename T>
CONVGRAD_INLINE void store_channels(T* dst, Vec<Sum<T>> v, int64_t count) {
  if constexpr (kWhole)
    store(dst, v);
  else
    store_some(dst, v, count);
}

// A sum waits for its own last step, so few pixels are taken together with several vectors of channels.
constexpr int vectors_at_once(int pixels) { return pixels >= 8 ? 1 : pixels == 4 ? 2 : 4; }

template <typename T, int kPixels, int kVectors, bool kWhole>
CONVGRAD_INLINE void finish_depthwise(const Vec<Sum<T>> (&sum)[kPixels][kVectors], const T* bias, bool relu,
                                      int64_t count, void* result, int64_t result_step, bool unrounded) {
  using S = Sum<T>;
  CONVGRAD_UNROLL
  for (int v = 0; v < kVectors; ++v) {
    Vec<S> b{};
    if (bias != nullptr) b = load_channels<kWhole>(bias + v * kLanes<S>, count);
    CONVGRAD_UNROLL
    for (int m = 0; m < kPixels; ++m) {
      Vec<S> y = sum[m][v];
      if (bias != nullptr) y += b;
      if (relu) y = y <= Vec<S>{} ? Vec<S>{} : y;  // rectified()
      const int64_t to = m * result_step + v * kLanes<S>;
      if (sizeof(T) == 2 && unrounded)
        store_channels<kWhole>(static_cast<S*>(result) + to, y, count);
      else
        store_channels<kWhole>(static_cast<T*>(result) + to, y, count);
    }
  }
}

// Computes `kVectors` vectors of channels, of which the last has `count` lanes if it is not whole.
template <typename T, int kPixels, int kVectors, bool kWhole>
CONVGRAD_INLINE void depthwise_block(const T* source, int64_t source_step, const DepthwiseTap* taps,
                                     int64_t terms, const T* filter, const T* bias, bool relu, int64_t count,
                                     void* result, int64_t result_step, bool unrounded) {
  using S = Sum<T>;
  Vec<S> sum[kPixels][kVectors];
  CONVGRAD_UNROLL
  for (int m = 0; m < kPixels; ++m) {
    CONVGRAD_UNROLL
    for (int v = 0; v < kVectors; ++v) sum[m][v] = Vec<S>{};
  }
  for (const DepthwiseTap* tap = taps; tap < taps + terms; ++tap) {
    const T* const x = source + tap->source;
    CONVGRAD_UNROLL
    for (int v = 0; v < kVectors; ++v) {
      const Vec<S> w = load_channels<kWhole>(filter + tap->filter + v * kLanes<S>, count);
      CONVGRAD_UNROLL
      for (int m = 0; m < kPixels; ++m)
        // y[n,o,c] += x[n,i,c] * w[r,c]
        sum[m][v] += load_channels<kWhole>(x + m * source_step + v * kLanes<S>, count) * w;
    }
  }
  finish_depthwise<T, kPixels, kVectors, kWhole>(sum, bias, relu, count, result, result_step, unrounded);
}

template <typename T, int kPixels, int kTaps, int kVectors, bool kWhole>
CONVGRAD_INLINE void window_block(const T* source, int64_t source_step, const DepthwiseTap* rows,
                                  int64_t count_rows, const T* filter, int64_t filter_step, const T* bias,
                                  bool relu, int64_t count, void* result, int64_t result_step,
                                  bool unrounded) {
  using S = Sum<T>;
  Vec<S> sum[kPixels][kVectors];
  CONVGRAD_UNROLL
  for (int m = 0; m < kPixels; ++m) {
    CONVGRAD_UNROLL
    for (int v = 0; v < kVectors; ++v) sum[m][v] = Vec<S>{};
  }
  for (const DepthwiseTap* row = rows; row < rows + count_rows * kTaps; row += kTaps) {
    CONVGRAD_UNROLL
    for (int v = 0; v < kVectors; ++v) {
      Vec<S> w[kTaps];
      CONVGRAD_UNROLL
      for (int r = 0; r < kTaps; ++r)
        w[r] = load_channels<kWhole>(filter + row->filter + r * filter_step + v * kLanes<S>, count);
      const T* x = source + row->source + v * kLanes<S>;
      CONVGRAD_UNROLL
      for (int i = 0; i < kPixels + kTaps - 1; ++i, x += source_step) {
        const Vec<S> x_i = load_channels<kWhole>(x, count);
        CONVGRAD_UNROLL
        for (int r = 0; r < kTaps; ++r) {
          if (i >= r && i - r < kPixels) sum[i - r][v] += x_i * w[r];  // y[n,o,c] += x[n,i,c] * w[r,c]
        }
      }
    }
  }
  finish_depthwise<T, kPixels, kVectors, kWhole>(sum, bias, relu, count, result, result_step, unrounded);
}

// Calls block(vectors, whole, channels left, first channel) for blocks of kVectors vectors, single ones and
// the rest.
template <typename S, int kVectors, typename Block>
CONVGRAD_INLINE void for_each_block(int64_t channels, const Block& block) {
  constexpr int lanes = kLanes<S>;
  int64_t at = 0;
  if constexpr (kVectors > 1) {
    for (; at + kVectors * lanes <= channels; at += kVectors * lanes)
      block(std::integral_constant<int, kVectors>(), std::true_type(), int64_t{lanes}, at);
  }
  for (; at + lanes <= channels; at += lanes)
    block(std::integral_constant<int, 1>(), std::true_type(), int64_t{lanes}, at);
  if (at < channels) block(std::integral_constant<int, 1>(), std::false_type(), channels - at, at);
}

template <typename T, int kPixels>
void depthwise_pixels(const T* source, int64_t source_step, const DepthwiseTap* taps, int64_t terms,
                      const T* filter, const T* bias, bool relu, int64_t channels, void* result,
                      int64_t result_step, bool unrounded) {
  const int64_t bytes = unrounded ? sizeof(Sum<T>) : sizeof(T);
  for_each_block<Sum<T>, vectors_at_once(kPixels)>(
      channels, [&](auto vectors, auto whole, int64_t count, int64_t at) __attribute__((always_inline)) {
        depthwise_block<T, kPixels, decltype(vectors)::value, decltype(whole)::value>(
            source + at, source_step, taps, terms, filter + at, bias == nullptr ? nullptr : bias + at, relu,
            count, static_cast<char*>(result) + at * bytes, result_step, unrounded);
      });
}

template <typename T, int kPixels, int kTaps>
void window_pixels(const T* source, int64_t source_step, const DepthwiseTap* rows, int64_t count_rows,
                   const T* filter, int64_t filter_step, const T* bias, bool relu, int64_t channels,
                   void* result, int64_t result_step, bool unrounded) {
  const int64_t bytes = unrounded ? sizeof(Sum<T>) : sizeof(T);
  for_each_block<Sum<T>, vectors_at_once(kPixels)>(
      channels, [&](auto vectors, auto whole, int64_t count, int64_t at) __attribute__((always_inline)) {
        window_block<T, kPixels, kTaps, decltype(vectors)::value, decltype(whole)::value>(
            source + at, source_step, rows, count_rows, filter + at, filter_step,
            bias == nullptr ? nullptr : bias + at, relu, count, static_cast<char*>(result) + at * bytes,
            result_step, unrounded);
      });
}

// The sources of kTaps neighbouring taps move by one from position to position, so each is loaded once.
template <typename T, int kTaps, int kVectors, bool kWhole>
CONVGRAD_INLINE void window_sums(const T* x, int64_t x_step, int64_t filter_step, const T* dy,
                                 int64_t dy_step, int64_t count, int64_t left, Sum<T>* sums) {
  using S = Sum<T>;
  Vec<S> sum[kTaps][kVectors], met[kTaps][kVectors];  // met: x of tap r in place (r + j) % kTaps
  const auto read = [&](const T* src, int v) __attribute__((always_inline)) {
    return load_channels<kWhole>(src + v * kLanes<S>, left);
  };
  CONVGRAD_UNROLL
  for (int r = 0; r < kTaps; ++r) {
    CONVGRAD_UNROLL
    for (int v = 0; v < kVectors; ++v) {
      sum[r][v] = Vec<S>{};
      met[r][v] = r < kTaps - 1 ? read(x + r * x_step, v) : Vec<S>{};
    }
  }
  x += (kTaps - 1) * x_step;
  int64_t j = 0;
  for (; j + kTaps <= count; j += kTaps) {
    CONVGRAD_UNROLL
    for (int u = 0; u < kTaps; ++u) {
      CONVGRAD_UNROLL
      for (int v = 0; v < kVectors; ++v) {
        const Vec<S> dy_j = read(dy, v);
        met[(u + kTaps - 1) % kTaps][v] = read(x, v);
        CONVGRAD_UNROLL
        for (int r = 0; r < kTaps; ++r)
          sum[r][v] += met[(u + r) % kTaps][v] * dy_j;  // dw[r,c] += x[n,i,c] * dy[n,o,c]
      }
      x += x_step;
      dy += dy_step;
    }
  }
  for (; j < count; ++j) {
    CONVGRAD_UNROLL
    for (int v = 0; v < kVectors; ++v) {
      const Vec<S> dy_j = read(dy, v);
      CONVGRAD_UNROLL
      for (int r = 0; r < kTaps; ++r) sum[r][v] += read(x + (r - (kTaps - 1)) * x_step, v) * dy_j;
    }
    x += x_step;
    dy += dy_step;
  }
  CONVGRAD_UNROLL
  for (int r = 0; r < kTaps; ++r) {
    CONVGRAD_UNROLL
    for (int v = 0; v < kVectors; ++v) {
      S* dst = sums + r * filter_step + v * kLanes<S>;
      store_channels<kWhole>(dst, load_channels<kWhole>(dst, left) + sum[r][v], left);
    }
  }
}

template <typename T, int kTaps>
void window_taps(const T* x, int64_t x_step, const DepthwiseTap& row, int64_t filter_step, const T* dy,
                 int64_t dy_step, int64_t count, int64_t channels, Sum<T>* sums) {
  for_each_block<Sum<T>, kTaps == 3 ? 2 : 1>(
      channels, [&](auto vectors, auto whole, int64_t left, int64_t at) __attribute__((always_inline)) {
        window_sums<T, kTaps, decltype(vectors)::value, decltype(whole)::value>(
            x + row.source + at, x_step, filter_step, dy + at, dy_step, count, left, sums + row.filter + at);
      });
}

// Calls step(std::bool_constant<whole vector>, first channel, channels left) for each vector of channels.
template <typename S, typename Step>
CONVGRAD_INLINE void for_each_channels(int64_t channels, const Step& step) {
  int64_t at = 0;
  for (; at + kLanes<S> <= channels; at += kLanes<S>) step(std::true_type(), at, int64_t{kLanes<S>});
  if (at < channels) step(std::false_type(), at, channels - at);
}

template <typename T, int kTaps>
void depthwise_taps(const T* x, int64_t x_step, const DepthwiseTap* taps, const T* dy, int64_t dy_step,
                    int64_t count, int64_t channels, Sum<T>* sums) {
  using S = Sum<T>;
  for_each_channels<S>(channels, [&](auto whole, int64_t at, int64_t left) __attribute__((always_inline)) {
    constexpr bool kWhole = decltype(whole)::value;
    Vec<S> sum[kTaps];
    const T* from[kTaps];
    CONVGRAD_UNROLL
    for (int q = 0; q < kTaps; ++q) {
      sum[q] = Vec<S>{};
      from[q] = x + taps[q].source + at;
    }
    const T* d = dy + at;
    int64_t offset = 0;
    for (int64_t j = 0; j < count; ++j, d += dy_step, offset += x_step) {
      const Vec<S> dy_j = load_channels<kWhole>(d, left);
      CONVGRAD_UNROLL
      for (int q = 0; q < kTaps; ++q)
        sum[q] += load_channels<kWhole>(from[q] + offset, left) * dy_j;  // dw[r,c] += x[n,i,c] * dy[n,o,c]
    }
    CONVGRAD_UNROLL
    for (int q = 0; q < kTaps; ++q) {
      S* dst = sums + taps[q].filter + at;
      store_channels<kWhole>(dst, load_channels<kWhole>(dst, left) + sum[q], left);
    }
  });
}

template <typename T>
constexpr DepthwiseTiles<T> kDepthwiseTiles = {
    {depthwise_pixels<T, 8>, depthwise_pixels<T, 4>, depthwise_pixels<T, 2>, depthwise_pixels<T, 1>},
    {depthwise_taps<T, 9>, depthwise_taps<T, 7>, depthwise_taps<T, 5>, depthwise_taps<T, 3>,
     depthwise_taps<T, 2>, depthwise_taps<T, 1>},
    {{window_pixels<T, 8, 3>, window_pixels<T, 4, 3>},
     {window_pixels<T, 8, 5>, window_pixels<T, 4, 5>},
     {window_pixels<T, 8, 7>, window_pixels<T, 4, 7>}},
    {window_taps<T, 3>, window_taps<T, 5>, window_taps<T, 7>}};

}  // namespace

template <>
const DepthwiseTiles<float>& depthwise_tiles<float>() {
  return kDepthwiseTiles<float>;
}
template <>
const DepthwiseTiles<double>& depthwise_tiles<double>() {
  return kDepthwiseTiles<double>;
}
template <>
const DepthwiseTiles<BFloat16>& depthwise_tiles<BFloat16>() {
  return kDepthwiseTiles<BFloat16>;
}
template <>
const DepthwiseTiles<Float16>& depthwise_tiles<Float16>() {
  return kDepthwiseTiles<Float16>;
}

}  // namespace convgrad::cpu::CONVGRAD_ISA
