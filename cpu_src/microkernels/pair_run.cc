#include "cpu_src/microkernels/pair_run.h"

#include "cpu_src/microkernels/lane_access.h"
#include "cpu_src/microkernels/simd.h"

namespace convgrad::cpu::CONVGRAD_ISA {
namespace {

// Calls body(channel, lanes) for each vector of the channels; the last may have fewer lanes.
template <typename T, typename Body>
CONVGRAD_INLINE void in_vectors(int64_t count, const Body& body) {
  constexpr int64_t lanes = kLanes<Sum<T>>;
  int64_t at = 0;
  for (; at + lanes <= count; at += lanes) body(at, lanes);
  if (at < count) body(at, count - at);
}

template <typename T>
CONVGRAD_INLINE Vec<Sum<T>> load_up_to(const T* src, int64_t count) {
  return count == kLanes<Sum<T>> ? load(src) : load_some(src, count);
}
template <typename S>
CONVGRAD_INLINE void store_up_to(S* dst, Vec<S> v, int64_t count) {
  if (count == kLanes<S>)
    store(dst, v);
  else
    store_first(dst, v, count);
}

// Adds lanes by halves; one after the other, each addition would wait for the one before.
template <typename S>
CONVGRAD_INLINE S sum_of(Vec<S> v) {
  CONVGRAD_UNROLL
  for (int half = kLanes<S> / 2; half > 0; half /= 2) {
    Ints<S> other;
    CONVGRAD_UNROLL
    for (int lane = 0; lane < kLanes<S>; ++lane) other[lane] = lane ^ half;
    v += permute(v, other);
  }
  return v[0];
}

// Computes (first + lane) / divisor and its remainder, lane by lane, without a division of integers, which
// takes longer than a short run. `first` must be less than a few vectors for the quotient to be exact.
template <typename S>
struct LanesDivided {
  Ints<S> quotient, remainder;

  CONVGRAD_INLINE LanesDivided(int64_t first, int64_t divisor) {
    Ints<S> lanes;
    CONVGRAD_UNROLL
    for (int lane = 0; lane < kLanes<S>; ++lane) lanes[lane] = lane;
    lanes += static_cast<Int<S>>(first);
    const Vec<S> exact = (__builtin_convertvector(lanes, Vec<S>) + S(0.5)) * (S{1} / static_cast<S>(divisor));
    quotient = __builtin_convertvector(exact, Ints<S>);
    remainder = lanes - quotient * static_cast<Int<S>>(divisor);
  }
};

// Multiplies pairs that are contiguous in both a and b as two long rows. Lanes belong to the channels in
// turn, with the same assignment every kPeriod vectors.
template <typename T, int kPeriod>
void neighbours(const T* a, const T* b, int64_t numbers, int64_t channels, Sum<T>* sums) {
  using S = Sum<T>;
  constexpr int lanes = kLanes<S>;
  // A sum waits for the one before it.
  constexpr int kAtOnce = kPeriod * (kPeriod < 4 ? (4 + kPeriod - 1) / kPeriod : 1);
  Vec<S> sum[kAtOnce] = {};
  int64_t at = 0;
  for (; at + kAtOnce * lanes <= numbers; at += kAtOnce * lanes) {
    CONVGRAD_UNROLL
    for (int v = 0; v < kAtOnce; ++v) sum[v] += load(a + at + v * lanes) * load(b + at + v * lanes);
  }
  for (int v = 0; at < numbers; ++v, at += lanes) {
    const int64_t count = numbers - at < lanes ? numbers - at : lanes;
    sum[v] += load_up_to(a + at, count) * load_up_to(b + at, count);
  }
  CONVGRAD_UNROLL
  for (int v = kPeriod; v < kAtOnce; ++v) sum[v % kPeriod] += sum[v];
  if (channels == 1) {
    *sums += sum_of<S>(sum[0]);
    return;
  }
  S each[kPeriod * lanes];
  for (int v = 0; v < kPeriod; ++v) store(each + v * lanes, sum[v]);
  for (int lane = 0, channel = 0; lane < kPeriod * lanes; ++lane) {
    sums[channel] += each[lane];
    if (++channel == channels) channel = 0;
  }
}

// The same if b runs backwards, position by position, and all channels, which divide the lanes, are summed.
template <typename T>
void neighbours_backwards(const T* a, const T* b, int64_t numbers, int64_t channels, Sum<T>* sums) {
  using S = Sum<T>;
  constexpr int lanes = kLanes<S>;
  const LanesDivided<S> place(0, channels);
  const Ints<S> lane_of =
      (static_cast<Int<S>>(lanes - channels) - place.quotient * static_cast<Int<S>>(channels)) +
      place.remainder;
  Vec<S> sum[2] = {};
  int64_t at = 0;
  b += channels - lanes;  // a vector's last position is the first one
  for (; at + 2 * lanes <= numbers; at += 2 * lanes) {
    CONVGRAD_UNROLL
    for (int v = 0; v < 2; ++v)
      sum[v] += load(a + at + v * lanes) * permute(load(b - at - v * lanes), lane_of);
  }
  *sums += sum_of<S>(sum[0] + sum[1]);
  b += lanes - channels;
  for (; at < numbers; at += channels) {
    for (int64_t l = 0; l < channels; ++l) *sums += widen(a[at + l]) * widen(b[l - at]);
  }
}

template <typename T>
void add_lanes(const PairRun<T>& run, int64_t channels, Sum<T>* sums) {
  using S = Sum<T>;
  const int64_t numbers = run.count * channels;
  if (numbers >= kLanes<S> && run.a_step == channels && run.b_step == channels) {
    if (kLanes<S> % channels == 0) return neighbours<T, 1>(run.a, run.b, numbers, channels, sums);
    if (kLanes<S> * 3 % channels == 0) return neighbours<T, 3>(run.a, run.b, numbers, channels, sums);
    if (kLanes<S> * 5 % channels == 0) return neighbours<T, 5>(run.a, run.b, numbers, channels, sums);
    if (kLanes<S> * 7 % channels == 0) return neighbours<T, 7>(run.a, run.b, numbers, channels, sums);
  }
  if (channels == 1) {
    if (numbers >= kLanes<S> && run.b_step == -1 && run.a_step == 1)
      return neighbours_backwards(run.a, run.b, numbers, 1, sums);
    if (numbers >= kLanes<S> && run.a_step == -1 && run.b_step == 1)
      return neighbours_backwards(run.b, run.a, numbers, 1, sums);
    constexpr int kAtOnce = 4;
    S sum[kAtOnce] = {};
    int64_t j = 0;
    const auto product = [&](int64_t at) CONVGRAD_LAMBDA {
      return widen(run.a[at * run.a_step]) * widen(run.b[at * run.b_step]);
    };
    for (; j + kAtOnce <= run.count; j += kAtOnce) {
      CONVGRAD_UNROLL
      for (int u = 0; u < kAtOnce; ++u) sum[u] += product(j + u);
    }
    for (; j < run.count; ++j) sum[0] += product(j);
    *sums += (sum[0] + sum[1]) + (sum[2] + sum[3]);
    return;
  }
  in_vectors<T>(channels, [&](int64_t l, int64_t count) CONVGRAD_LAMBDA {
    Vec<S> sum = load_up_to(sums + l, count);
    for (int64_t j = 0; j < run.count; ++j)
      sum += load_up_to(run.a + j * run.a_step + l, count) * load_up_to(run.b + j * run.b_step + l, count);
    store_up_to(sums + l, sum, count);
  });
}

// The same if each number of a meets all channels of b: sums[k] += a * b[k].
template <typename T, int kPeriod>
void neighbours_of_one(const T* a, const T* b, int64_t pairs, int64_t channels, Sum<T>* sums) {
  using S = Sum<T>;
  constexpr int lanes = kLanes<S>;
  const int64_t at_once = kPeriod * lanes / channels;  // pairs
  Ints<S> lane_of[kPeriod];
  int64_t first[kPeriod];
  for (int v = 0; v < kPeriod; ++v) {
    first[v] = v * lanes / channels;
    lane_of[v] = LanesDivided<S>(v * lanes, channels).quotient - static_cast<Int<S>>(first[v]);
  }
  Vec<S> sum[kPeriod] = {};
  int64_t at = 0;
  for (; at + first[kPeriod - 1] + lanes <= pairs; at += at_once) {
    CONVGRAD_UNROLL
    for (int v = 0; v < kPeriod; ++v)
      sum[v] += permute(load(a + at + first[v]), lane_of[v]) * load(b + at * channels + v * lanes);
  }
  S each[kPeriod * lanes];
  for (int v = 0; v < kPeriod; ++v) store(each + v * lanes, sum[v]);
  for (int lane = 0, channel = 0; lane < kPeriod * lanes; ++lane) {
    sums[channel] += each[lane];
    if (++channel == channels) channel = 0;
  }
  for (; at < pairs; ++at) {
    for (int64_t k = 0; k < channels; ++k) sums[k] += widen(a[at]) * widen(b[at * channels + k]);
  }
}

template <typename T>
void add_rows(const PairRun<T>& run, int64_t c_count, int64_t k_count, int64_t row, Sum<T>* sums) {
  using S = Sum<T>;
  if (c_count == 1 && run.count >= 2 * kLanes<S> && run.a_step == 1 && run.b_step == k_count) {
    if (kLanes<S> % k_count == 0) return neighbours_of_one<T, 1>(run.a, run.b, run.count, k_count, sums);
    if (k_count == 3) return neighbours_of_one<T, 3>(run.a, run.b, run.count, k_count, sums);
  }
  // Processes several vectors at once, because a sum waits for the one before it and rows lie far from each
  // other.
  constexpr int64_t kAtOnce = 4, lanes = kLanes<S>;
  int64_t first = 0;
  for (; first + kAtOnce * lanes <= k_count; first += kAtOnce * lanes) {
    Vec<S> sum[kAtOnce];
    CONVGRAD_UNROLL
    for (int v = 0; v < kAtOnce; ++v) sum[v] = load(sums + first + v * lanes);
    for (int64_t j = 0; j < run.count; ++j) {
      const T* a = run.a + j * run.a_step;
      const T* b = run.b + j * run.b_step + first;
      for (int64_t c = 0; c < c_count; ++c, b += row) {
        const Vec<S> times = broadcast(widen(a[c]));
        CONVGRAD_UNROLL
        for (int v = 0; v < kAtOnce; ++v) sum[v] += times * load(b + v * lanes);
      }
    }
    CONVGRAD_UNROLL
    for (int v = 0; v < kAtOnce; ++v) store(sums + first + v * lanes, sum[v]);
  }
  in_vectors<T>(k_count - first, [&](int64_t at, int64_t count) CONVGRAD_LAMBDA {
    const int64_t k = first + at;
    Vec<S> sum = load_up_to(sums + k, count);
    for (int64_t j = 0; j < run.count; ++j) {
      const T* a = run.a + j * run.a_step;
      const T* b = run.b + j * run.b_step + k;
      for (int64_t c = 0; c < c_count; ++c, b += row) sum += broadcast(widen(a[c])) * load_up_to(b, count);
    }
    store_up_to(sums + k, sum, count);
  });
}

template <typename T>
void add_dots(const PairRun<T>& run, int64_t c_count, int64_t k_count, int64_t row, Sum<T>* sums) {
  using S = Sum<T>;
  if (c_count == 1 && run.count * k_count >= kLanes<S>) {
    const int64_t forwards = k_count, backwards = -k_count;
    if (run.a_step == forwards && run.b_step == forwards)
      return neighbours<T, 1>(run.a, run.b, run.count * k_count, 1, sums);
    if (kLanes<S> % k_count == 0 && run.a_step == forwards && run.b_step == backwards)
      return neighbours_backwards(run.a, run.b, run.count * k_count, k_count, sums);
    if (kLanes<S> % k_count == 0 && run.a_step == backwards && run.b_step == forwards)
      return neighbours_backwards(run.b, run.a, run.count * k_count, k_count, sums);
  }
  if (row == k_count && 2 * k_count <= kLanes<S>) {
    // Computes the products of several c side by side.
    in_vectors<T>(c_count * k_count, [&](int64_t first, int64_t count) CONVGRAD_LAMBDA {
      int64_t c = first / k_count, k = first % k_count;
      const Ints<S> k_of = LanesDivided<S>(k, k_count).remainder;
      Vec<S> sum{};
      for (int64_t j = 0; j < run.count; ++j)
        sum += permute(load_up_to(run.a + j * run.a_step, k_count), k_of) *
               load_up_to(run.b + j * run.b_step + first, count);
      S each[kLanes<S>];
      store(each, sum);
      for (int64_t lane = 0; lane < count; ++lane) {
        sums[c] += each[lane];
        if (++k == k_count) k = 0, ++c;
      }
    });
    return;
  }
  for (int64_t c = 0; c < c_count; ++c) {
    Vec<S> sum{};
    in_vectors<T>(k_count, [&](int64_t k, int64_t count) CONVGRAD_LAMBDA {
      for (int64_t j = 0; j < run.count; ++j)
        sum += load_up_to(run.a + j * run.a_step + k, count) *
               load_up_to(run.b + j * run.b_step + c * row + k, count);
    });
    sums[c] += sum_of<S>(sum);
  }
}

template <typename T>
void add_outer(const PairRun<T>& run, int64_t c_count, int64_t k_count, int64_t row, Sum<T>* sums) {
  using S = Sum<T>;
  if (row == k_count && 2 * k_count <= kLanes<S>) {
    in_vectors<T>(c_count * k_count, [&](int64_t first, int64_t count) CONVGRAD_LAMBDA {
      // Lanes past the last channel are not stored.
      const int64_t first_c = first / k_count;
      const int64_t channels = c_count - first_c < kLanes<S> ? c_count - first_c : kLanes<S>;
      const LanesDivided<S> place(first % k_count, k_count);
      const Ints<S> k_of = place.remainder, c_of = place.quotient;
      Vec<S> sum[2] = {load_up_to(sums + first, count), Vec<S>{}};
      const auto product = [&](int64_t j) CONVGRAD_LAMBDA {
        return permute(load_up_to(run.a + j * run.a_step + first_c, channels), c_of) *
               permute(load_up_to(run.b + j * run.b_step, k_count), k_of);
      };
      int64_t j = 0;
      for (; j + 2 <= run.count; j += 2) {
        CONVGRAD_UNROLL
        for (int u = 0; u < 2; ++u) sum[u] += product(j + u);
      }
      if (j < run.count) sum[0] += product(j);
      store_up_to(sums + first, sum[0] + sum[1], count);
    });
    return;
  }
  for (int64_t c = 0; c < c_count; ++c) {
    in_vectors<T>(k_count, [&](int64_t k, int64_t count) CONVGRAD_LAMBDA {
      Vec<S> sum = load_up_to(sums + c * row + k, count);
      for (int64_t j = 0; j < run.count; ++j)
        sum += broadcast(widen(run.a[j * run.a_step + c])) * load_up_to(run.b + j * run.b_step + k, count);
      store_up_to(sums + c * row + k, sum, count);
    });
  }
}

template <typename T>
constexpr PairRuns<T> kPairRuns = {add_lanes<T>, add_rows<T>, add_dots<T>, add_outer<T>};

}  // namespace

template <>
const PairRuns<float>& pair_runs<float>() {
  return kPairRuns<float>;
}
template <>
const PairRuns<double>& pair_runs<double>() {
  return kPairRuns<double>;
}
template <>
const PairRuns<BFloat16>& pair_runs<BFloat16>() {
  return kPairRuns<BFloat16>;
}
template <>
const PairRuns<Float16>& pair_runs<Float16>() {
  return kPairRuns<Float16>;
}

}  // namespace convgrad::cpu::CONVGRAD_ISA
