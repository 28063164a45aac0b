#include <type_traits>

#include "common_src/long_sum.h"
#include "cpu_src/microkernels/lane_access.h"
#include "cpu_src/microkernels/pool_run.h"

namespace convgrad::cpu::CONVGRAD_ISA {
namespace {

// Computes sum[v] = the sum of term(v, offset, t0, t1, t2) over the taps; long sums in runs, as in
// common_src/long_sum.h.
template <typename S, bool kLong, int kCount, typename Term>
CONVGRAD_INLINE void sum_over_taps(const PoolRun& run, Vec<S> (&sum)[kCount], const Term& term) {
  Vec<S> runs[kCount], total[kCount];
  CONVGRAD_UNROLL
  for (int v = 0; v < kCount; ++v) sum[v] = runs[v] = total[v] = Vec<S>{};
  int64_t length = 0;
  for (int64_t t0 = 0; t0 < run.taps[0]; ++t0) {
    for (int64_t t1 = 0; t1 < run.taps[1]; ++t1) {
      int64_t tap = t0 * run.tap_step[0] + t1 * run.tap_step[1];
      for (int64_t t2 = 0; t2 < run.taps[2]; ++t2) {
        CONVGRAD_UNROLL
        for (int v = 0; v < kCount; ++v) sum[v] += term(v, tap, t0, t1, t2);
        tap += run.tap_step[2];
        if constexpr (kLong) {
          if (++length % kSumRun != 0) continue;
          const bool both = length % (kSumRun * kSumRun) == 0;
          for (int v = 0; v < kCount; ++v) {
            runs[v] += sum[v];
            sum[v] = Vec<S>{};
            if (both) {
              total[v] += runs[v];
              runs[v] = Vec<S>{};
            }
          }
        }
      }
    }
  }
  if constexpr (kLong) {
    for (int v = 0; v < kCount; ++v) sum[v] = total[v] + (runs[v] + sum[v]);
  }
}

// How the taps of a run are weighted and added; each is a copy of the loops over the window.
enum class Sums {
  kForward,   // few taps, all with a weight of 1
  kUniform,   // few taps, all with one weight
  kLong,      // many taps, all with one weight
  kWeighted,  // a weight for each tap and result
};

// Computes result = (the sum of weight * source over the taps) / divisor. The forward pass has a weight of 1
// and the gradient a divisor of 1, both of which are exact.
template <typename T, Sums kSums>
void weighted_sums(const PoolRun& run, const PoolWeights<Sum<T>>& weights, Sum<T> divisor, const T* source,
                   T* result) {
  using S = Sum<T>;
  constexpr bool kUsual = kSums == Sums::kForward || kSums == Sums::kUniform;
  for_each_vector<T, kUsual>(run, [&](const auto access, const auto& places) CONVGRAD_LAMBDA {
    constexpr int count = std::decay_t<decltype(places)>::count;
    Vec<S> sum[count];
    sum_over_taps<S, !kUsual>(
        run, sum, [&](int v, int64_t tap, int64_t t0, int64_t t1, int64_t t2) CONVGRAD_LAMBDA {
          const Vec<S> read = access.read(source + places.source(v) + tap);
          if constexpr (kSums == Sums::kForward) return read;
          S weight = weights.uniform;
          if constexpr (kSums == Sums::kWeighted)
            weight = weights.axis[0][t0 * weights.tap_step[0]] * weights.axis[1][t1 * weights.tap_step[1]] *
                     weights.axis[2][places.unit(v) + t2 * weights.tap_step[2]];
          return access.meeting(t2 + 1 == run.taps[2], read) * weight;
        });
    CONVGRAD_UNROLL
    for (int v = 0; v < count; ++v) {
      if constexpr (kSums == Sums::kForward || kSums == Sums::kLong) sum[v] /= divisor;
      access.write(result + places.result(v), sum[v]);
    }
  });
}

bool is_long(const PoolRun& run) { return run.taps[0] * run.taps[1] * run.taps[2] > kSumRun; }

template <typename T>
void avg_forward(const PoolRun& run, Sum<T> divisor, const T* x, T* y) {
  if (is_long(run))
    weighted_sums<T, Sums::kLong>(run, {}, divisor, x, y);
  else
    weighted_sums<T, Sums::kForward>(run, {}, divisor, x, y);
}

template <typename T>
void avg_gradient(const PoolRun& run, const PoolWeights<Sum<T>>& weights, const T* dy, T* dx) {
  if (weights.axis[2] != nullptr)
    weighted_sums<T, Sums::kWeighted>(run, weights, 1, dy, dx);
  else if (is_long(run))
    weighted_sums<T, Sums::kLong>(run, weights, 1, dy, dx);
  else
    weighted_sums<T, Sums::kUniform>(run, weights, 1, dy, dx);
}

template <typename T>
constexpr AvgPoolRuns<T> kAvgRuns = {kLanes<Sum<T>>, avg_forward<T>, avg_gradient<T>};

}  // namespace

template <>
const AvgPoolRuns<float>& avg_pool_runs<float>() {
  return kAvgRuns<float>;
}
template <>
const AvgPoolRuns<double>& avg_pool_runs<double>() {
  return kAvgRuns<double>;
}
template <>
const AvgPoolRuns<BFloat16>& avg_pool_runs<BFloat16>() {
  return kAvgRuns<BFloat16>;
}
template <>
const AvgPoolRuns<Float16>& avg_pool_runs<Float16>() {
  return kAvgRuns<Float16>;
}

}  // namespace convgrad::cpu::CONVGRAD_ISA
