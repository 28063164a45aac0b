#include "cpu_src/microkernels/channel_planes.h"

#include <utility>

#include "cpu_src/microkernels/lane_access.h"
#include "cpu_src/microkernels/simd.h"

namespace convgrad::cpu::CONVGRAD_ISA {
namespace {

// `so_far`, with the lanes for which from_lane(lane) >= 0 taken from that lane of `other`.
template <typename S, typename FromLane>
CONVGRAD_INLINE Vec<S> merged(Vec<S> so_far, Vec<S> other, const FromLane& from_lane) {
  Ints<S> pick;
  CONVGRAD_UNROLL
  for (int lane = 0; lane < kLanes<S>; ++lane) {
    const int from = from_lane(lane);
    pick[lane] = from >= 0 ? kLanes<S> + from : lane;
  }
  return __builtin_shuffle(so_far, other, pick);
}

template <typename T, int kChannels>
void split(const T* pixels, int64_t count, Sum<T>* planes, int64_t plane_step) {
  using S = Sum<T>;
  constexpr int lanes = kLanes<S>;
  int64_t at = 0;
  for (; at + lanes <= count; at += lanes) {
    Vec<S> all[kChannels];
    CONVGRAD_UNROLL
    for (int v = 0; v < kChannels; ++v) all[v] = load(pixels + at * kChannels + v * lanes);
    CONVGRAD_UNROLL
    for (int c = 0; c < kChannels; ++c) {
      Vec<S> plane{};
      CONVGRAD_UNROLL
      for (int v = 0; v < kChannels; ++v) {
        plane = merged<S>(plane, all[v], [&](int lane) CONVGRAD_LAMBDA {
          const int number = lane * kChannels + c;
          return number / lanes == v ? number % lanes : -1;
        });
      }
      store(planes + c * plane_step + at, plane);
    }
  }
  for (; at < count; ++at) {
    for (int c = 0; c < kChannels; ++c) planes[c * plane_step + at] = widen(pixels[at * kChannels + c]);
  }
}

template <typename T, int kChannels>
void join(const Sum<T>* planes, int64_t plane_step, int64_t count, T* pixels) {
  using S = Sum<T>;
  constexpr int lanes = kLanes<S>;
  int64_t at = 0;
  for (; at + lanes <= count; at += lanes) {
    Vec<S> all[kChannels];
    CONVGRAD_UNROLL
    for (int c = 0; c < kChannels; ++c) all[c] = load(planes + c * plane_step + at);
    CONVGRAD_UNROLL
    for (int v = 0; v < kChannels; ++v) {
      Vec<S> numbers{};
      CONVGRAD_UNROLL
      for (int c = 0; c < kChannels; ++c) {
        numbers = merged<S>(numbers, all[c], [&](int lane) CONVGRAD_LAMBDA {
          const int number = v * lanes + lane;
          return number % kChannels == c ? number / kChannels : -1;
        });
      }
      store(pixels + at * kChannels + v * lanes, numbers);
    }
  }
  for (; at < count; ++at) {
    for (int c = 0; c < kChannels; ++c) pixels[at * kChannels + c] = narrow<T>(planes[c * plane_step + at]);
  }
}

template <typename T, int... kChannels>
constexpr ChannelPlanes<T> all_of(std::integer_sequence<int, kChannels...>) {
  return {{nullptr, split<T, kChannels + 1>...}, {nullptr, join<T, kChannels + 1>...}};
}
template <typename T>
constexpr ChannelPlanes<T> kPlanes = all_of<T>(std::make_integer_sequence<int, kMostPlanes>());

template <typename S>
void sum_of_planes(const S* source, int64_t plane_step, const S* factor, int64_t sources, const S* bias,
                   bool relu, S* result, int64_t count) {
  constexpr int64_t kAtOnce = 4, lanes = kLanes<S>;
  for (int64_t at = 0; at < count; at += kAtOnce * lanes) {
    Vec<S> sum[kAtOnce];
    CONVGRAD_UNROLL
    for (int v = 0; v < kAtOnce; ++v) sum[v] = load(source + at + v * lanes) * splat(factor[0]);
    for (int64_t s = 1; s < sources; ++s) {
      const Vec<S> times = splat(factor[s]);
      CONVGRAD_UNROLL
      for (int v = 0; v < kAtOnce; ++v) sum[v] += load(source + s * plane_step + at + v * lanes) * times;
    }
    CONVGRAD_UNROLL
    for (int v = 0; v < kAtOnce; ++v) {
      if (bias != nullptr) sum[v] += splat(*bias);
      if (relu) sum[v] = select<S>(sum[v] <= Vec<S>{}, Vec<S>{}, sum[v]);  // NaN stays
      store(result + at + v * lanes, sum[v]);
    }
  }
}

}  // namespace

template <>
const ChannelPlanes<float>& channel_planes<float>() {
  return kPlanes<float>;
}
template <>
const ChannelPlanes<double>& channel_planes<double>() {
  return kPlanes<double>;
}
template <>
const ChannelPlanes<BFloat16>& channel_planes<BFloat16>() {
  return kPlanes<BFloat16>;
}
template <>
const ChannelPlanes<Float16>& channel_planes<Float16>() {
  return kPlanes<Float16>;
}
template <>
PlaneSum<float> plane_sum<float>() {
  return sum_of_planes<float>;
}
template <>
PlaneSum<double> plane_sum<double>() {
  return sum_of_planes<double>;
}

}  // namespace convgrad::cpu::CONVGRAD_ISA
