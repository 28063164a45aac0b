#include "cpu_src/microkernels/spread.h"

#include "cpu_src/microkernels/simd.h"

namespace convgrad::cpu::CONVGRAD_ISA {
namespace {

template <typename S>
struct IndexVecOf {
  typedef LaneIndex<S> type __attribute__((vector_size(kVectorBytes)));
};
template <typename S>
using IndexVec = typename IndexVecOf<S>::type;

template <typename S>
CONVGRAD_INLINE IndexVec<S> load_index(const LaneIndex<S>* src) {
  IndexVec<S> v;
  __builtin_memcpy(&v, src, sizeof v);
  return v;
}

template <typename T>
CONVGRAD_INLINE Vec<Sum<T>> load_at_most(const T* src, int64_t count) {
  return count >= kLanes<Sum<T>> ? load(src) : load_some(src, count);
}

// Makes the copies of one pixel whose channels come from several vectors: each vector contributes the lanes
// whose source lies in it.
template <typename T, typename S>
CONVGRAD_INLINE void gather(const T* src, const LaneSources<S>& sources, S* dst, int64_t copy_step) {
  constexpr int lanes = kLanes<S>;
  for (int64_t c = 0; c < sources.copies; ++c) {
    const LaneIndex<S>* lane = sources.lane + c * lanes;
    const IndexVec<S> index = load_index<S>(lane);
    IndexVec<S> all = {};
    for (int64_t piece = lane[0] / lanes; piece <= lane[lanes - 1] / lanes; ++piece) {
      const Vec<S> part = load_at_most(src + piece * lanes, sources.count - piece * lanes);
      const IndexVec<S> here = (index & -lanes) == static_cast<LaneIndex<S>>(piece * lanes);
      all |= (IndexVec<S>)permute(part, index) & here;  // indices are modulo the lanes
    }
    store(dst + c * copy_step, (Vec<S>)all);
  }
}

template <typename T>
void spread_pixels(const T* src, int64_t from_step, int64_t pixels, const LaneSources<Sum<T>>* sources,
                   int64_t vectors, Sum<T>* dst, int64_t to_step, int64_t vector_step, int64_t copy_step) {
  using S = Sum<T>;
  constexpr int lanes = kLanes<S>;
  int64_t whole = 0;
  while (whole < vectors && sources[whole].in_order && sources[whole].count == lanes) ++whole;
  for (int64_t pixel = 0; pixel < pixels; ++pixel, src += from_step, dst += to_step) {
    for (int64_t v = 0; v < whole; ++v) store(dst + v * vector_step, load(src + sources->first + v * lanes));
    for (int64_t v = whole; v < vectors; ++v) {
      const LaneSources<S>& some = sources[v];
      const T* x = src + some.first;
      S* spread = dst + v * vector_step;
      if (some.in_order) {
        store(spread, load_at_most(x, some.count));
      } else if (some.count <= lanes) {
        const Vec<S> all = load_at_most(x, some.count);
        for (int64_t c = 0; c < some.copies; ++c)
          store(spread + c * copy_step, permute(all, load_index<S>(some.lane + c * lanes)));
      } else {
        gather(x, some, spread, copy_step);
      }
    }
  }
}

}  // namespace

template <>
Spread<float> spread<float>() {
  return spread_pixels<float>;
}
template <>
Spread<double> spread<double>() {
  return spread_pixels<double>;
}
template <>
Spread<BFloat16> spread<BFloat16>() {
  return spread_pixels<BFloat16>;
}
template <>
Spread<Float16> spread<Float16>() {
  return spread_pixels<Float16>;
}

}  // namespace convgrad::cpu::CONVGRAD_ISA
