// Reads and writes pooling's vectors: whole ones, the first lanes of one, or lanes picked from several
// pixels.
#pragma once

#include "cpu_src/microkernels/pool_run.h"
#include "cpu_src/microkernels/simd.h"

#define CONVGRAD_LAMBDA __attribute__((always_inline))

namespace convgrad::cpu::CONVGRAD_ISA {

// Integers as wide as a lane, for the results of comparisons and for positions.
template <typename S>
struct IntOf {
  using type = int32_t;
};
template <>
struct IntOf<double> {
  using type = int64_t;
};
template <typename S>
using Int = typename IntOf<S>::type;
template <typename S>
using Ints = Vec<Int<S>>;

template <typename S>
CONVGRAD_INLINE Vec<S> select(Ints<S> mask, Vec<S> a, Vec<S> b) {
  return mask ? a : b;
}
template <typename S>
CONVGRAD_INLINE Vec<S> keep(Ints<S> mask, Vec<S> v) {
  return (Vec<S>)((Ints<S>)v & mask);
}

// Forces a load before the mask is applied: a masked load would wait for the mask, and for stores that it
// might overlap.
template <typename V>
CONVGRAD_INLINE V in_register(V v) {
#if defined(__AVX512F__)
  __asm__("" : "+v"(v));
#endif
  return v;
}

template <typename S>
CONVGRAD_INLINE bool any_nan(Vec<S> v) {
#if defined(__AVX512F__)
  if constexpr (sizeof(S) == 4)
    return _mm512_cmp_ps_mask((__m512)v, (__m512)v, _CMP_UNORD_Q) != 0;
  else
    return _mm512_cmp_pd_mask((__m512d)v, (__m512d)v, _CMP_UNORD_Q) != 0;
#else
  const Ints<S> nan = v != v;
  typedef int64_t Words __attribute__((vector_size(kVectorBytes)));
  int64_t any = 0;
  for (int word = 0; word < kVectorBytes / 8; ++word) any |= ((Words)nan)[word];
  return any != 0;
#endif
}

// Loads as many int32 as S has lanes.
template <typename S>
CONVGRAD_INLINE Ints<S> load_ints(const int32_t* src) {
  typedef int32_t Narrow __attribute__((vector_size(kLanes<S> * 4)));
  Narrow v;
  __builtin_memcpy(&v, src, sizeof v);
  return __builtin_convertvector(v, Ints<S>);
}

template <typename S>
CONVGRAD_INLINE void store_ints(int32_t* dst, Ints<S> v) {
  typedef int32_t Narrow __attribute__((vector_size(kLanes<S> * 4)));
  const Narrow narrow = __builtin_convertvector(v, Narrow);
  __builtin_memcpy(dst, &narrow, sizeof narrow);
}

template <typename S>
CONVGRAD_INLINE Ints<S> load_first_ints(const int32_t* src, int64_t count) {
  if constexpr (sizeof(S) == 4) {
    return load_first<int32_t>(src, count);
  } else {
    Ints<S> v{};
    for (int64_t lane = 0; lane < count; ++lane) v[lane] = src[lane];
    return v;
  }
}

template <typename S>
CONVGRAD_INLINE void store_first_ints(int32_t* dst, Ints<S> v, int64_t count) {
  if constexpr (sizeof(S) == 4) {
    store_first<int32_t>(dst, v, count);
  } else {
    for (int64_t lane = 0; lane < count; ++lane) dst[lane] = static_cast<int32_t>(v[lane]);
  }
}

template <typename T>
struct WholeVector {
  using S = Sum<T>;
  CONVGRAD_INLINE Vec<S> read(const T* src) const { return load(src); }
  CONVGRAD_INLINE Ints<S> read_positions(const int32_t* src) const { return load_ints<S>(src); }
  CONVGRAD_INLINE void write(T* dst, Vec<S> v) const { store(dst, v); }
  CONVGRAD_INLINE void write_positions(int32_t* dst, Ints<S> v) const { store_ints<S>(dst, v); }
  CONVGRAD_INLINE Ints<S> positions() const { return Ints<S>{}; }
  CONVGRAD_INLINE Vec<S> meeting(bool, Vec<S> v) const { return v; }
};

template <typename T>
struct FirstLanes {
  using S = Sum<T>;
  int64_t count;
  CONVGRAD_INLINE Vec<S> read(const T* src) const { return load_some(src, count); }
  CONVGRAD_INLINE Ints<S> read_positions(const int32_t* src) const { return load_first_ints<S>(src, count); }
  CONVGRAD_INLINE void write(T* dst, Vec<S> v) const { store_some(dst, v, count); }
  CONVGRAD_INLINE void write_positions(int32_t* dst, Ints<S> v) const { store_first_ints<S>(dst, v, count); }
  CONVGRAD_INLINE Ints<S> positions() const { return Ints<S>{}; }
  CONVGRAD_INLINE Vec<S> meeting(bool, Vec<S> v) const { return v; }
};

// Lanes picked from the span by a permutation. A span longer than one vector ends where its second load ends.
template <typename T, bool kTwoLoads>
struct PickedLanes {
  using S = Sum<T>;
  static constexpr int lanes = kLanes<S>;

  CONVGRAD_INLINE explicit PickedLanes(const PoolRun& run) : PickedLanes(run, *run.lanes) {}
  CONVGRAD_INLINE PickedLanes(const PoolRun& run, const LaneMap& map)
      : used(map.used),
        span(map.span),
        last(static_cast<const T*>(run.source_end) - lanes),
        last_position(run.position_end - lanes),
        pick(load_ints<S>(map.pick)),
        position(load_ints<S>(map.position)),
        last_tap(load_ints<S>(map.last_tap)) {
    // An element of the second vector counts from the end of the first load.
    if constexpr (kTwoLoads) pick = pick < Int<S>{lanes} ? pick : pick + Int<S>(2 * lanes - span);
  }

  CONVGRAD_INLINE Vec<S> read(const T* src) const {
    if constexpr (kTwoLoads) return permute(load(src), load(src + span - lanes), pick);
    return permute(__builtin_expect(src <= last, 1) ? load(src) : load_some(src, span), pick);
  }
  CONVGRAD_INLINE Ints<S> read_positions(const int32_t* src) const {
    if constexpr (kTwoLoads) return permute(load_ints<S>(src), load_ints<S>(src + span - lanes), pick);
    return permute(
        __builtin_expect(src <= last_position, 1) ? load_ints<S>(src) : load_first_ints<S>(src, span), pick);
  }
  CONVGRAD_INLINE void write(T* dst, Vec<S> v) const {
    if (used == lanes)
      store(dst, v);
    else
      store_some(dst, v, used);
  }
  CONVGRAD_INLINE void write_positions(int32_t* dst, Ints<S> v) const {
    if (used == lanes)
      store_ints<S>(dst, v);
    else
      store_first_ints<S>(dst, v, used);
  }
  CONVGRAD_INLINE Ints<S> positions() const { return position; }
  // Returns v in lanes that meet this tap of the innermost axis, otherwise zero.
  CONVGRAD_INLINE Vec<S> meeting(bool last_of_axis, Vec<S> v) const {
    return last_of_axis ? keep<S>(last_tap, v) : v;
  }

  int64_t used, span;
  const T* last;  // the last places at which a whole vector can be read
  const int32_t* last_position;
  Ints<S> pick, position, last_tap;
};

// The starts of `kCount` vectors in source and result, and their units in the run, each a step from the one
// before. Several vectors at once share the cost of walking over the taps.
template <int kCount>
struct Places {
  static constexpr int count = kCount;
  int64_t first_source, first_result, first_unit, source_step, result_step, unit_step;
  CONVGRAD_INLINE int64_t source(int v) const { return first_source + v * source_step; }
  CONVGRAD_INLINE int64_t result(int v) const { return first_result + v * result_step; }
  CONVGRAD_INLINE int64_t unit(int v) const { return first_unit + v * unit_step; }
};

// Calls step(at) for at = 0, size, 2 * size, ...; if the last step would reach past `count`, it begins
// earlier and computes some results again. `count` must be at least `size`. There is one call of step(),
// since each is a copy of the loop over the window, and such copies take most of the time to compile.
template <typename Step>
CONVGRAD_INLINE void in_steps(int64_t count, int64_t size, const Step& step) {
  for (int64_t at = 0; at < count; at += size) step(at + size < count ? at : count - size);
}

// Calls body(access, places) for the vectors of one channel (or of all, if a vector has `units` units),
// kBlock of them at once if there are as many.
template <int kBlock, typename Access, typename Body>
CONVGRAD_INLINE void along_units(const PoolRun& run, const Access& access, int64_t units, int64_t channel,
                                 const Body& body) {
  const auto at = [&](auto places, int64_t unit) CONVGRAD_LAMBDA {
    places.first_source = unit * run.source_step + channel;
    places.first_result = unit * run.result_step + channel;
    places.first_unit = unit;
    places.source_step = units * run.source_step;
    places.result_step = units * run.result_step;
    places.unit_step = units;
    body(access, places);
  };
  if constexpr (kBlock > 1) {
    if (run.count >= kBlock * units)
      return in_steps(run.count, kBlock * units,
                      [&](int64_t unit) CONVGRAD_LAMBDA { at(Places<kBlock>{}, unit); });
  }
  in_steps(run.count, units, [&](int64_t unit) CONVGRAD_LAMBDA { at(Places<1>{}, unit); });
}

// Calls body(access, places) for every vector of the run's results. Unless kUsual, the run is of a rare kind,
// and most vectors are processed one at a time, which compiles faster.
template <typename T, bool kUsual, typename Body>
CONVGRAD_INLINE void for_each_vector(const PoolRun& run, const Body& body) {
  constexpr int64_t lanes = kLanes<Sum<T>>;
  // Next to the conversion of numbers of 16 bits, walking over the taps costs little.
  constexpr int kBlock = kOldProcessor              ? 1
                         : std::is_same_v<T, float> ? 4
                                                    : 2,
                kPickedBlock = kUsual ? kBlock : 1;
  if (run.lanes != nullptr) {
    if (run.lanes->span > lanes)
      along_units<kPickedBlock>(run, PickedLanes<T, true>(run), run.lanes->units, 0, body);
    else
      along_units<kPickedBlock>(run, PickedLanes<T, false>(run), run.lanes->units, 0, body);
  } else if (kBlock > 1 && (run.channels % (kBlock * lanes) == 0 || run.channels > 4 * kBlock * lanes)) {
    for (int64_t unit = 0; unit < run.count; ++unit) {
      in_steps(run.channels, kBlock * lanes, [&](int64_t c) CONVGRAD_LAMBDA {
        const Places<kBlock> places{
            unit * run.source_step + c, unit * run.result_step + c, unit, lanes, lanes, 0};
        body(WholeVector<T>{}, places);
      });
    }
  } else if (run.channels >= lanes) {
    in_steps(run.channels, lanes, [&](int64_t c) CONVGRAD_LAMBDA {
      along_units<kUsual ? kBlock : 1>(run, WholeVector<T>{}, 1, c, body);
    });
  } else {
    for (int64_t unit = 0; unit < run.count; ++unit) {
      const Places<1> place{unit * run.source_step, unit * run.result_step, unit, 0, 0, 0};
      body(FirstLanes<T>{run.channels}, place);
    }
  }
}

}  // namespace convgrad::cpu::CONVGRAD_ISA
