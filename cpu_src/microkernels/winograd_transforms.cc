// Evaluates polynomials at 0, at two pairs of opposite points and at infinity, and reads results off there; a
// pair has its even and its odd terms in common.
#include "cpu_src/microkernels/winograd_transforms.h"

#include <type_traits>

#include "cpu_src/microkernels/simd.h"

namespace convgrad::cpu::CONVGRAD_ISA {
namespace {

using V = Vec<float>;

// The points besides 0 and infinity are +-kSmall and +-kLarge, whose squares are 1/2 and 2.
constexpr float kSmall = 0.70710678118654752f, kLarge = 2 * kSmall;

// v = C^T x. Row p has the coefficients of the product of (z - a) over the points a other than point p.
CONVGRAD_INLINE void transform(const V (&x)[6], V (&v)[6]) {
  const V even_small = x[4] - 2.0f * x[2], odd_small = x[3] - 2.0f * x[1];
  const V even_large = x[4] - 0.5f * x[2], odd_large = x[3] - 0.5f * x[1];
  v[0] = (x[0] + x[4]) - 2.5f * x[2];
  v[1] = even_small + kSmall * odd_small;
  v[2] = even_small - kSmall * odd_small;
  v[3] = even_large + kLarge * odd_large;
  v[4] = even_large - kLarge * odd_large;
  v[5] = (x[1] + x[5]) - 2.5f * x[3];
}

// d = E4 dy: the polynomial with coefficients dy at each point, and at infinity its last coefficient.
CONVGRAD_INLINE void transform(const V (&dy)[4], V (&d)[6]) {
  const V even_small = dy[0] + 0.5f * dy[2], odd_small = dy[1] + 0.5f * dy[3];
  const V even_large = dy[0] + 2.0f * dy[2], odd_large = dy[1] + 2.0f * dy[3];
  d[0] = dy[0];
  d[1] = even_small + kSmall * odd_small;
  d[2] = even_small - kSmall * odd_small;
  d[3] = even_large + kLarge * odd_large;
  d[4] = even_large - kLarge * odd_large;
  d[5] = dy[3];
}

// The product of (point p - a) over the other points, by which C leaves it to E3 to divide: 1 at 0 and
// infinity, and at +-kSmall and +-kLarge the reciprocals of these.
constexpr float kOfSmall = -2.0f / 3, kOfLarge = 1.0f / 6;

// u = E3 w, divided.
CONVGRAD_INLINE void transform(const V (&w)[3], V (&u)[6]) {
  const V even_small = kOfSmall * (w[0] + 0.5f * w[2]), odd_small = (kOfSmall * kSmall) * w[1];
  const V even_large = kOfLarge * (w[0] + 2.0f * w[2]), odd_large = (kOfLarge * kLarge) * w[1];
  u[0] = w[0];
  u[1] = even_small + odd_small;
  u[2] = even_small - odd_small;
  u[3] = even_large + odd_large;
  u[4] = even_large - odd_large;
  u[5] = w[2];
}

// y = E4^T m.
CONVGRAD_INLINE void transform(const V (&m)[6], V (&y)[4]) {
  const V even_small = m[1] + m[2], odd_small = m[1] - m[2];
  const V even_large = m[3] + m[4], odd_large = m[3] - m[4];
  y[0] = m[0] + (even_small + even_large);
  y[1] = kSmall * odd_small + kLarge * odd_large;
  y[2] = 0.5f * even_small + 2.0f * even_large;
  y[3] = m[5] + ((0.5f * kSmall) * odd_small + (2 * kLarge) * odd_large);
}

// dw = E3^T m, divided.
CONVGRAD_INLINE void transform(const V (&m)[6], V (&dw)[3]) {
  const V even_small = kOfSmall * (m[1] + m[2]), odd_small = m[1] - m[2];
  const V even_large = kOfLarge * (m[3] + m[4]), odd_large = m[3] - m[4];
  dw[0] = m[0] + (even_small + even_large);
  dw[1] = (kOfSmall * kSmall) * odd_small + (kOfLarge * kLarge) * odd_large;
  dw[2] = m[5] + (0.5f * even_small + 2.0f * even_large);
}

// Transforms kFrom numbers to kTo along one axis or both. `read` gives number `at`, `write` takes it.
template <int kAxes, int kFrom, int kTo, typename Read, typename Write>
CONVGRAD_INLINE void transform_all(const Read& read, const Write& write) {
  if constexpr (kAxes == 1) {
    V from[kFrom], to[kTo];
    CONVGRAD_UNROLL
    for (int i = 0; i < kFrom; ++i) from[i] = read(i);
    transform(from, to);
    CONVGRAD_UNROLL
    for (int i = 0; i < kTo; ++i) write(i, to[i]);
  } else {
    V half[kTo][kFrom];
    CONVGRAD_UNROLL
    for (int j = 0; j < kFrom; ++j) {
      V from[kFrom], to[kTo];
      CONVGRAD_UNROLL
      for (int i = 0; i < kFrom; ++i) from[i] = read(i * kFrom + j);
      transform(from, to);
      CONVGRAD_UNROLL
      for (int i = 0; i < kTo; ++i) half[i][j] = to[i];
    }
    CONVGRAD_UNROLL
    for (int i = 0; i < kTo; ++i) {
      V to[kTo];
      transform(half[i], to);
      CONVGRAD_UNROLL
      for (int j = 0; j < kTo; ++j) write(i * kTo + j, to[j]);
    }
  }
}

template <bool kWhole, typename T>
CONVGRAD_INLINE V read_lanes(const T* src, int64_t count) {
  if constexpr (kWhole)
    return load(src);
  else
    return load_some(src, count);
}
template <bool kWhole, typename T>
CONVGRAD_INLINE void write_lanes(T* dst, V v, int64_t count) {
  if constexpr (kWhole)
    store(dst, v);
  else
    store_some(dst, v, count);
}

// Calls step(std::bool_constant<whole>, first channel, channels left) for each vector of channels.
template <typename Step>
CONVGRAD_INLINE void for_each_lanes(int64_t channels, const Step& step) {
  constexpr int lanes = kLanes<float>;
  int64_t at = 0;
  for (; at + lanes <= channels; at += lanes) step(std::true_type(), at, int64_t{lanes});
  if (at < channels) step(std::false_type(), at, channels - at);
}

template <typename T, int kAxes, int kFrom>
void transform_pointed(const T* const* src, int64_t channels, float* dst, int64_t point_step) {
  for_each_lanes(channels, [&](auto whole, int64_t at, int64_t count) __attribute__((always_inline)) {
    constexpr bool kWhole = decltype(whole)::value;
    transform_all<kAxes, kFrom, 6>(
        [&](int i) __attribute__((always_inline)) { return read_lanes<kWhole>(src[i] + at, count); },
        [&](int p, V v) __attribute__((always_inline)) { store(dst + p * point_step + at, v); });
  });
}

template <typename T, int kAxes>
void transform_filter(const T* w, int64_t tap_step, int64_t channels, float* u, int64_t point_step) {
  for_each_lanes(channels, [&](auto whole, int64_t at, int64_t count) __attribute__((always_inline)) {
    constexpr bool kWhole = decltype(whole)::value;
    transform_all<kAxes, 3, 6>(
        [&](int r)
            __attribute__((always_inline)) { return read_lanes<kWhole>(w + r * tap_step + at, count); },
        [&](int p, V v) __attribute__((always_inline)) { store(u + p * point_step + at, v); });
  });
}

template <typename Stored, typename T, int kAxes>
CONVGRAD_INLINE void transform_to_results(const float* m, int64_t point_step, int64_t channels, const T* bias,
                                          bool relu, void* const* tile) {
  for_each_lanes(channels, [&](auto whole, int64_t at, int64_t count) __attribute__((always_inline)) {
    constexpr bool kWhole = decltype(whole)::value;
    const V b = bias == nullptr ? V{} : read_lanes<kWhole>(bias + at, count);
    transform_all<kAxes, 6, 4>([&](int p)
                                   __attribute__((always_inline)) { return load(m + p * point_step + at); },
                               [&](int o, V y) __attribute__((always_inline)) {
                                 if (tile[o] == nullptr) return;
                                 if (bias != nullptr) y += b;
                                 if (relu) y = y <= V{} ? V{} : y;  // rectified()
                                 write_lanes<kWhole>(static_cast<Stored*>(tile[o]) + at, y, count);
                               });
  });
}

template <typename T, int kAxes>
void transform_output(const float* m, int64_t point_step, int64_t channels, const T* bias, bool relu,
                      bool unrounded, void* const* tile) {
  if constexpr (sizeof(T) == 2) {
    if (!unrounded) return transform_to_results<T, T, kAxes>(m, point_step, channels, bias, relu, tile);
  }
  transform_to_results<float, T, kAxes>(m, point_step, channels, bias, relu, tile);
}

template <int kAxes>
void transform_filter_grad(const float* m, int64_t point_step, int64_t channels, float* dw,
                           int64_t tap_step) {
  for_each_lanes(channels, [&](auto whole, int64_t at, int64_t count) __attribute__((always_inline)) {
    constexpr bool kWhole = decltype(whole)::value;
    transform_all<kAxes, 6, 3>(
        [&](int p) __attribute__((always_inline)) { return load(m + p * point_step + at); },
        [&](int r, V v)
            __attribute__((always_inline)) { write_lanes<kWhole>(dw + r * tap_step + at, v, count); });
  });
}

// Exchanges, stage by stage, blocks of 1, 2, 4, ... lanes between rows so many rows apart.
template <typename T>
void transpose_lanes(const T* src, int64_t row_step, int64_t rows, int64_t columns, float* dst) {
  constexpr int lanes = kLanes<float>;
  typedef int32_t Lanes __attribute__((vector_size(kVectorBytes)));
  V row[lanes];
  CONVGRAD_UNROLL
  for (int i = 0; i < lanes; ++i) {
    row[i] = i >= rows          ? V{}
             : columns == lanes ? load(src + i * row_step)
                                : load_some(src + i * row_step, columns);
  }
  CONVGRAD_UNROLL
  for (int width = 1; width < lanes; width *= 2) {
    Lanes low, high;
    CONVGRAD_UNROLL
    for (int lane = 0; lane < lanes; ++lane) {
      low[lane] = lane & width ? lanes + lane - width : lane;
      high[lane] = lane & width ? lanes + lane : lane + width;
    }
    CONVGRAD_UNROLL
    for (int i = 0; i < lanes; ++i) {
      if (i & width) continue;
      const V a = row[i], b = row[i + width];
      row[i] = permute(a, b, low);
      row[i + width] = permute(a, b, high);
    }
  }
  CONVGRAD_UNROLL
  for (int i = 0; i < lanes; ++i) store(dst + i * lanes, row[i]);
}

template <typename T, int kAxes>
constexpr WinogradTransforms<T> kTransforms = {
    kLanes<float>,
    transform_pointed<T, kAxes, 6>,
    transform_pointed<T, kAxes, 4>,
    transform_filter<T, kAxes>,
    transform_output<T, kAxes>,
    transform_filter_grad<kAxes>,
};

}  // namespace

#define CONVGRAD_DEFINE(T)                                        \
  template <>                                                     \
  const WinogradTransforms<T>& winograd_transforms<T>(int axes) { \
    return axes == 1 ? kTransforms<T, 1> : kTransforms<T, 2>;     \
  }                                                               \
  template <>                                                     \
  TransposeBlock<T> transpose_block<T>() {                        \
    return transpose_lanes<T>;                                    \
  }
CONVGRAD_DEFINE(float)
CONVGRAD_DEFINE(BFloat16)
CONVGRAD_DEFINE(Float16)
#undef CONVGRAD_DEFINE

}  // namespace convgrad::cpu::CONVGRAD_ISA
