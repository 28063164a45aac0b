#include "cpu_src/microkernels/channel_planes.h"

#include <utility>

#include "cpu_src/microkernels/lane_access.h"
#include "cpu_src/microkernels/simd.h"

namespace convgrad::cpu::CONVGRAD_ISA {
namespace {

// Returns a vector whose lane l is lane pick(l) of a followed by b.
template <typename S, typename Pick>
CONVGRAD_INLINE Vec<S> picked(Vec<S> a, Vec<S> b, const Pick& pick) {
  Ints<S> lanes;
  CONVGRAD_UNROLL
  for (int lane = 0; lane < kLanes<S>; ++lane) lanes[lane] = static_cast<Int<S>>(pick(lane));
  return permute(a, b, lanes);
}

// Splits the numbers of kLanes pixels, where all[v] holds those from v * kLanes on, into planes, where all[c]
// holds those of channel c. While the number of channels is even, odd and even ones are separated.
template <typename S, int kChannels>
CONVGRAD_INLINE void split_vectors(Vec<S> (&all)[kChannels]) {
  constexpr int lanes = kLanes<S>;
  if constexpr (kChannels % 2 == 0) {
    Vec<S> even[kChannels / 2], odd[kChannels / 2];
    CONVGRAD_UNROLL
    for (int v = 0; v < kChannels / 2; ++v) {
      even[v] = picked<S>(all[2 * v], all[2 * v + 1], [](int lane) CONVGRAD_LAMBDA { return 2 * lane; });
      odd[v] = picked<S>(all[2 * v], all[2 * v + 1], [](int lane) CONVGRAD_LAMBDA { return 2 * lane + 1; });
    }
    split_vectors<S, kChannels / 2>(even);
    split_vectors<S, kChannels / 2>(odd);
    CONVGRAD_UNROLL
    for (int c = 0; c < kChannels / 2; ++c) all[2 * c] = even[c], all[2 * c + 1] = odd[c];
  } else if constexpr (kChannels > 1) {
    Vec<S> planes[kChannels];
    CONVGRAD_UNROLL
    for (int c = 0; c < kChannels; ++c) {
      planes[c] = Vec<S>{};
      CONVGRAD_UNROLL
      for (int v = 0; v < kChannels; ++v) {
        planes[c] = picked<S>(planes[c], all[v], [&](int lane) CONVGRAD_LAMBDA {
          const int number = lane * kChannels + c;
          return number / lanes == v ? lanes + number % lanes : lane;
        });
      }
    }
    CONVGRAD_UNROLL
    for (int c = 0; c < kChannels; ++c) all[c] = planes[c];
  }
}

// The inverse of split_vectors().
template <typename S, int kChannels>
CONVGRAD_INLINE void join_vectors(Vec<S> (&all)[kChannels]) {
  constexpr int lanes = kLanes<S>;
  if constexpr (kChannels % 2 == 0) {
    Vec<S> even[kChannels / 2], odd[kChannels / 2];
    CONVGRAD_UNROLL
    for (int c = 0; c < kChannels / 2; ++c) even[c] = all[2 * c], odd[c] = all[2 * c + 1];
    join_vectors<S, kChannels / 2>(even);
    join_vectors<S, kChannels / 2>(odd);
    CONVGRAD_UNROLL
    for (int v = 0; v < kChannels / 2; ++v) {
      all[2 * v] =
          picked<S>(even[v], odd[v], [](int lane) CONVGRAD_LAMBDA { return lane / 2 + lane % 2 * lanes; });
      all[2 * v + 1] = picked<S>(
          even[v], odd[v], [](int lane) CONVGRAD_LAMBDA { return lanes / 2 + lane / 2 + lane % 2 * lanes; });
    }
  } else if constexpr (kChannels > 1) {
    Vec<S> numbers[kChannels];
    CONVGRAD_UNROLL
    for (int v = 0; v < kChannels; ++v) {
      numbers[v] = Vec<S>{};
      CONVGRAD_UNROLL
      for (int c = 0; c < kChannels; ++c) {
        numbers[v] = picked<S>(numbers[v], all[c], [&](int lane) CONVGRAD_LAMBDA {
          const int number = v * lanes + lane;
          return number % kChannels == c ? lanes + number / kChannels : lane;
        });
      }
    }
    CONVGRAD_UNROLL
    for (int v = 0; v < kChannels; ++v) all[v] = numbers[v];
  }
}

template <typename S, int kChannels>
void split(const S* pixels, int64_t count, S* planes, int64_t plane_step) {
  constexpr int lanes = kLanes<S>;
  int64_t at = 0;
  for (; at + lanes <= count; at += lanes) {
    Vec<S> all[kChannels];
    CONVGRAD_UNROLL
    for (int v = 0; v < kChannels; ++v) all[v] = load(pixels + at * kChannels + v * lanes);
    split_vectors<S, kChannels>(all);
    CONVGRAD_UNROLL
    for (int c = 0; c < kChannels; ++c) store(planes + c * plane_step + at, all[c]);
  }
  for (; at < count; ++at) {
    for (int c = 0; c < kChannels; ++c) planes[c * plane_step + at] = pixels[at * kChannels + c];
  }
}

template <typename S, int kChannels>
void join(const S* planes, int64_t plane_step, int64_t count, S* pixels) {
  constexpr int lanes = kLanes<S>;
  int64_t at = 0;
  for (; at + lanes <= count; at += lanes) {
    Vec<S> all[kChannels];
    CONVGRAD_UNROLL
    for (int c = 0; c < kChannels; ++c) all[c] = load(planes + c * plane_step + at);
    join_vectors<S, kChannels>(all);
    CONVGRAD_UNROLL
    for (int v = 0; v < kChannels; ++v) store(pixels + at * kChannels + v * lanes, all[v]);
  }
  for (; at < count; ++at) {
    for (int c = 0; c < kChannels; ++c) pixels[at * kChannels + c] = planes[c * plane_step + at];
  }
}

template <typename S, int... kChannels>
constexpr ChannelPlanes<S> all_planes(std::integer_sequence<int, kChannels...>) {
  return {{nullptr, split<S, kChannels + 1>...}, {nullptr, join<S, kChannels + 1>...}};
}
template <typename S>
constexpr ChannelPlanes<S> kPlanes = all_planes<S>(std::make_integer_sequence<int, kMostPlanes>());

template <typename S>
void sum_of_planes(const S* source, const int64_t* offset, const S* factor, int64_t terms, const S* bias,
                   bool relu, S* result, int64_t count) {
  constexpr int64_t kAtOnce = 4, lanes = kLanes<S>;
  for (int64_t at = 0; at < count; at += kAtOnce * lanes) {
    Vec<S> sum[kAtOnce];
    CONVGRAD_UNROLL
    for (int v = 0; v < kAtOnce; ++v)
      sum[v] = load(source + offset[0] + at + v * lanes) * broadcast(factor[0]);
    for (int64_t t = 1; t < terms; ++t) {
      const Vec<S> times = broadcast(factor[t]);
      CONVGRAD_UNROLL
      for (int v = 0; v < kAtOnce; ++v) sum[v] += load(source + offset[t] + at + v * lanes) * times;
    }
    CONVGRAD_UNROLL
    for (int v = 0; v < kAtOnce; ++v) {
      if (bias != nullptr) sum[v] += broadcast(*bias);
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
PlaneSum<float> plane_sum<float>() {
  return sum_of_planes<float>;
}
template <>
PlaneSum<double> plane_sum<double>() {
  return sum_of_planes<double>;
}

}  // namespace convgrad::cpu::CONVGRAD_ISA
