#include <limits>
#include <type_traits>

#include "cpu_src/microkernels/lane_access.h"
#include "cpu_src/microkernels/pool_run.h"

namespace convgrad::cpu::CONVGRAD_ISA {
namespace {

// Keeps the best value and its position in registers over the window. If no tap exceeds -infinity, the first
// tap's position stands; without taps the run's own (-1). Unless kNan, NaN is not recognised as the largest,
// but it reaches `doubt` through its product with zero, and so does an infinity.
template <typename T, bool kPosition, bool kNan, typename Access, int kCount>
CONVGRAD_INLINE void over_taps(const PoolRun& run, const Access& access, const T* const (&src)[kCount],
                               Vec<Sum<T>> (&best)[kCount], Ints<Sum<T>> (&chosen)[kCount],
                               Vec<Sum<T>> (&doubt)[kCount]) {
  using S = Sum<T>;
  CONVGRAD_UNROLL
  for (int v = 0; v < kCount; ++v) {
    best[v] = broadcast(-std::numeric_limits<S>::infinity());
    chosen[v] = Ints<S>{};
    doubt[v] = Vec<S>{};
  }
  for (int64_t t0 = 0; t0 < run.taps[0]; ++t0) {
    for (int64_t t1 = 0; t1 < run.taps[1]; ++t1) {
      int64_t tap = t0 * run.tap_step[0] + t1 * run.tap_step[1];
      int64_t at = t0 * run.tap_position[0] + t1 * run.tap_position[1];
      for (int64_t t2 = 0; t2 < run.taps[2]; ++t2) {
        const Ints<S> here = broadcast(static_cast<Int<S>>(at));
        CONVGRAD_UNROLL
        for (int v = 0; v < kCount; ++v) {
          const Vec<S> candidate = in_register(access.read(src[v] + tap));
          const Ints<S> exceeds = kNan ? ~(candidate <= best[v]) & (best[v] == best[v]) : candidate > best[v];
          best[v] = select<S>(exceeds, candidate, best[v]);
          if constexpr (kPosition) chosen[v] = exceeds ? here : chosen[v];
          if constexpr (!kNan) doubt[v] += candidate * S{0};
        }
        tap += run.tap_step[2];
        at += run.tap_position[2];
      }
    }
  }
}

// Does the same for one vector of results, with NaN recognised. Not inlined, since it is rare.
template <typename T, bool kPosition, typename Access>
__attribute__((noinline)) void over_taps_with_nan(const PoolRun& run, const Access& access, const T* src,
                                                  Vec<Sum<T>>* best, Ints<Sum<T>>* chosen) {
  Vec<Sum<T>> best_of[1], doubt[1];
  Ints<Sum<T>> chosen_of[1];
  over_taps<T, kPosition, true>(run, access, {src}, best_of, chosen_of, doubt);
  *best = best_of[0];
  *chosen = chosen_of[0];
}

template <typename T, bool kPosition>
void max_forward(const PoolRun& run, const T* x, T* y, int32_t* position) {
  using S = Sum<T>;
  for_each_vector<T, true>(run, [&](const auto access, const auto& places) CONVGRAD_LAMBDA {
    constexpr int count = std::decay_t<decltype(places)>::count;
    const T* src[count];
    Vec<S> best[count], doubt[count];
    Ints<S> chosen[count];
    for (int v = 0; v < count; ++v) src[v] = x + places.source(v);
    over_taps<T, kPosition, false>(run, access, src, best, chosen, doubt);
    CONVGRAD_UNROLL
    for (int v = 1; v < count; ++v) doubt[0] += doubt[v];
    if (__builtin_expect(any_nan<S>(doubt[0]), 0)) {
      // Copies, so that what the loop above uses stays in registers.
      const auto same_access = access;
      CONVGRAD_UNROLL
      for (int v = 0; v < count; ++v) {
        Vec<S> best_of_v;
        Ints<S> chosen_of_v;
        over_taps_with_nan<T, kPosition>(run, same_access, src[v], &best_of_v, &chosen_of_v);
        best[v] = best_of_v;
        chosen[v] = chosen_of_v;
      }
    }
    CONVGRAD_UNROLL
    for (int v = 0; v < count; ++v) {
      access.write(y + places.result(v), best[v]);
      if constexpr (kPosition) {
        const auto first = static_cast<Int<S>>(run.position + places.unit(v) * run.position_step);
        access.write_positions(position + places.result(v), chosen[v] + access.positions() + first);
      }
    }
  });
}

template <typename T>
void max_forward_of(const PoolRun& run, const T* x, T* y, int32_t* position) {
  if (position != nullptr)
    max_forward<T, true>(run, x, y, position);
  else
    max_forward<T, false>(run, x, y, position);
}

template <typename T>
void max_gradient(const PoolRun& run, const T* dy, const int32_t* position, T* dx) {
  using S = Sum<T>;
  for_each_vector<T, true>(run, [&](const auto access, const auto& places) CONVGRAD_LAMBDA {
    constexpr int count = std::decay_t<decltype(places)>::count;
    Ints<S> here[count];
    Vec<S> sum[count];
    CONVGRAD_UNROLL
    for (int v = 0; v < count; ++v) {
      here[v] = access.positions() + static_cast<Int<S>>(run.position + places.unit(v) * run.position_step);
      sum[v] = Vec<S>{};
    }
    for (int64_t t0 = 0; t0 < run.taps[0]; ++t0) {
      for (int64_t t1 = 0; t1 < run.taps[1]; ++t1) {
        int64_t tap = t0 * run.tap_step[0] + t1 * run.tap_step[1];
        for (int64_t t2 = 0; t2 < run.taps[2]; ++t2) {
          CONVGRAD_UNROLL
          for (int v = 0; v < count; ++v) {
            const int64_t at = places.source(v) + tap;
            const Vec<S> given = in_register(access.read(dy + at));
            const Vec<S> chosen = keep<S>(access.read_positions(position + at) == here[v], given);
            sum[v] += access.meeting(t2 + 1 == run.taps[2], chosen);
          }
          tap += run.tap_step[2];
        }
      }
    }
    CONVGRAD_UNROLL
    for (int v = 0; v < count; ++v) access.write(dx + places.result(v), sum[v]);
  });
}

template <typename T>
constexpr MaxPoolRuns<T> kMaxRuns = {kLanes<Sum<T>>, max_forward_of<T>, max_gradient<T>};

}  // namespace

template <>
const MaxPoolRuns<float>& max_pool_runs<float>() {
  return kMaxRuns<float>;
}
template <>
const MaxPoolRuns<double>& max_pool_runs<double>() {
  return kMaxRuns<double>;
}
template <>
const MaxPoolRuns<BFloat16>& max_pool_runs<BFloat16>() {
  return kMaxRuns<BFloat16>;
}
template <>
const MaxPoolRuns<Float16>& max_pool_runs<Float16>() {
  return kMaxRuns<Float16>;
}

}  // namespace convgrad::cpu::CONVGRAD_ISA
