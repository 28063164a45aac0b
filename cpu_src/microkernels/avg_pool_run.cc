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

bool is_long(const PoolRun& run) { return run.taps[0] * run.taps[1] * run.taps[2] > kSumRun; }

template <typename T, bool kLong>
void forward(const PoolRun& run, Sum<T> divisor, const T* x, T* y) {
  using S = Sum<T>;
  for_each_vector<T>(run, [&](const auto access, const auto& places) CONVGRAD_LAMBDA {
    constexpr int count = std::decay_t<decltype(places)>::count;
    Vec<S> sum[count];
    sum_over_taps<S, kLong>(run, sum, [&](int v, int64_t tap, int64_t, int64_t, int64_t) CONVGRAD_LAMBDA {
      return access.read(x + places.source(v) + tap);
    });
    CONVGRAD_UNROLL
    for (int v = 0; v < count; ++v) access.write(y + places.result(v), sum[v] / divisor);
  });
}

template <typename T>
void forward_of(const PoolRun& run, Sum<T> divisor, const T* x, T* y) {
  if (is_long(run))
    forward<T, true>(run, divisor, x, y);
  else
    forward<T, false>(run, divisor, x, y);
}

template <typename T, bool kLong, bool kUniform>
void gradient(const PoolRun& run, const PoolWeights<Sum<T>>& weights, const T* dy, T* dx) {
  using S = Sum<T>;
  for_each_vector<T>(run, [&](const auto access, const auto& places) CONVGRAD_LAMBDA {
    constexpr int count = std::decay_t<decltype(places)>::count;
    Vec<S> sum[count];
    sum_over_taps<S, kLong>(
        run, sum, [&](int v, int64_t tap, int64_t t0, int64_t t1, int64_t t2) CONVGRAD_LAMBDA {
          S weight = weights.uniform;
          if constexpr (!kUniform)
            weight = weights.axis[0][t0 * weights.tap_step[0]] * weights.axis[1][t1 * weights.tap_step[1]] *
                     weights.axis[2][places.unit(v) + t2 * weights.tap_step[2]];
          const Vec<S> read = access.read(dy + places.source(v) + tap);
          return access.meeting(t2 + 1 == run.taps[2], read) * weight;
        });
    CONVGRAD_UNROLL
    for (int v = 0; v < count; ++v) access.write(dx + places.result(v), sum[v]);
  });
}

template <typename T>
void gradient_of(const PoolRun& run, const PoolWeights<Sum<T>>& weights, const T* dy, T* dx) {
  const bool uniform = weights.axis[2] == nullptr;
  if (is_long(run))
    uniform ? gradient<T, true, true>(run, weights, dy, dx) : gradient<T, true, false>(run, weights, dy, dx);
  else
    uniform ? gradient<T, false, true>(run, weights, dy, dx)
            : gradient<T, false, false>(run, weights, dy, dx);
}

template <typename T>
constexpr AvgPoolRuns<T> kRuns = {kLanes<Sum<T>>, forward_of<T>, gradient_of<T>};

}  // namespace

template <>
const AvgPoolRuns<float>& avg_pool_runs<float>() {
  return kRuns<float>;
}
template <>
const AvgPoolRuns<double>& avg_pool_runs<double>() {
  return kRuns<double>;
}
template <>
const AvgPoolRuns<BFloat16>& avg_pool_runs<BFloat16>() {
  return kRuns<BFloat16>;
}
template <>
const AvgPoolRuns<Float16>& avg_pool_runs<Float16>() {
  return kRuns<Float16>;
}

}  // namespace convgrad::cpu::CONVGRAD_ISA
