// Pooling over a run of results along the innermost axis that meet the same taps; the kernels are
// max_pool_run.cc and avg_pool_run.cc.
#pragma once

#include <cstdint>

#include "common_src/number.h"
#include "common_src/problem.h"
#include "cpu_src/isa.h"

namespace convgrad::cpu {

// How several pixels of few channels share a vector: `units` consecutive units of a run per vector. A unit is
// one result forwards, and as many as the stride backwards.
struct LaneMap {
  int64_t units = 0;     // 0: one result at a time, in as many vectors as its channels need
  int64_t used = 0;      // lanes in use, from the first on
  int64_t span = 0;      // elements of the source from which a vector is picked
  int32_t pick[16];      // lane -> element of the span
  int32_t position[16];  // lane -> position, relative to the vector's first lane
  int32_t last_tap[16];  // lane -> -1 if it meets the innermost axis's last tap, otherwise 0
};

// Steps and offsets are in elements. Source positions of the taps are relative to the first tap.
struct PoolRun {
  int64_t count = 0;  // units
  int64_t channels = 0;
  int64_t source_step = 0, result_step = 0;  // from unit to unit
  int64_t taps[kAxes] = {}, tap_step[kAxes] = {};
  // Flat spatial positions: forwards of the first unit's first tap, backwards of the first result itself.
  int64_t position = 0, position_step = 0, tap_position[kAxes] = {};
  const LaneMap* lanes = nullptr;
  const void* source_end = nullptr;  // memory behind this must not be read
  const int32_t* position_end = nullptr;

  bool has_taps() const { return taps[0] * taps[1] * taps[2] > 0; }
};

// The factor of avg_pool_grad: `uniform`, or if results differ in their divisors the product of an entry of
// each of three tables. Tables begin at the first tap's entry and advance by the steps.
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
