// Pooling over a run of results that meet the same taps, along the innermost axis; max_pool_run.cc and
// avg_pool_run.cc are the kernels.
#pragma once

#include <cstdint>

#include "common_src/number.h"
#include "common_src/problem.h"
#include "cpu_src/isa.h"

namespace convgrad::cpu {

// How several pixels of few channels share a vector: one unit of a run after another, `units` of them a
// vector (a unit is one result forwards, and as many as the stride backwards).
struct LaneMap {
  int64_t units = 0;     // 0: one result a time, its channels in as many vectors as it takes
  int64_t used = 0;      // lanes, from the first on
  int64_t span = 0;      // elements of the source that a vector is picked from
  int32_t pick[16];      // lane -> element of the span
  int32_t position[16];  // lane -> position, from that of the vector's first lane
  int32_t last_tap[16];  // lane -> -1 where it meets the innermost axis' last tap, else 0
};

// Steps and offsets are in elements. Source positions of the taps count from those of the first tap.
struct PoolRun {
  int64_t count = 0;  // units
  int64_t channels = 0;
  int64_t source_step = 0, result_step = 0;  // from unit to unit
  int64_t taps[kAxes] = {}, tap_step[kAxes] = {};
  // Flat spatial positions: of the first unit's first tap forwards, of the first result itself backwards.
  int64_t position = 0, position_step = 0, tap_position[kAxes] = {};
  const LaneMap* lanes = nullptr;
  const void* source_end = nullptr;  // what lies behind must not be read
  const int32_t* position_end = nullptr;

  bool has_taps() const { return taps[0] * taps[1] * taps[2] > 0; }
};

// What avg_pool_grad multiplies by: `uniform`, or where results differ in their divisors the product of an
// entry of each of three tables. Tables begin at the first tap's entry and are walked by the steps.
template <typename S>
struct PoolWeights {
  S uniform = 1;
  const S* axis[kAxes] = {};  // axis[2] null: uniform
  int64_t tap_step[kAxes] = {};
};

template <typename T>
struct MaxPoolRuns {
  int lanes;
  void (*forward)(const PoolRun&, const T* x, T* y, int32_t* position);  // position may be null
  void (*gradient)(const PoolRun&, const T* dy, const int32_t* position, T* dx);
};

template <typename T>
struct AvgPoolRuns {
  int lanes;
  void (*forward)(const PoolRun&, Sum<T> divisor, const T* x, T* y);
  void (*gradient)(const PoolRun&, const PoolWeights<Sum<T>>&, const T* dy, T* dx);
};

CONVGRAD_PER_ISA(template <typename T> const MaxPoolRuns<T>& max_pool_runs())
CONVGRAD_PER_ISA(template <typename T> const AvgPoolRuns<T>& avg_pool_runs())

}  // namespace convgrad::cpu
