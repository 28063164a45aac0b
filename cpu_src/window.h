// Walking the tied positions of one window, for pooling: each tap of the window that lies on the input,
// in row-major order; and from the other side, each output whose window holds an input position.
#pragma once

#include <cstdint>

#include "ffi_src/problem.h"

namespace convgrad::cpu {

struct Position {
  int64_t at[kAxes];
};

// The position of flat index `flat` over axes of the given sizes.
inline Position unflatten(int64_t flat, int64_t size1, int64_t size2) {
  return {{flat / (size1 * size2), flat / size2 % size1, flat % size2}};
}

inline Position output_position(const PoolProblem& p, int64_t flat) {
  return unflatten(flat, p.axis[1].output, p.axis[2].output);
}

inline Position input_position(const PoolProblem& p, int64_t flat) {
  return unflatten(flat, p.axis[1].input, p.axis[2].input);
}

// Calls visit(flat input index) for every tap of output o's window that is on the input.
template <typename Visit>
void for_each_input(const PoolProblem& p, const Position& o, Visit&& visit) {
  for (int64_t r0 = 0; r0 < p.axis[0].taps; ++r0) {
    const int64_t i0 = p.axis[0].input_at(o.at[0], r0);
    if (i0 == kNone) continue;
    for (int64_t r1 = 0; r1 < p.axis[1].taps; ++r1) {
      const int64_t i1 = p.axis[1].input_at(o.at[1], r1);
      if (i1 == kNone) continue;
      for (int64_t r2 = 0; r2 < p.axis[2].taps; ++r2) {
        const int64_t i2 = p.axis[2].input_at(o.at[2], r2);
        if (i2 != kNone) visit((i0 * p.axis[1].input + i1) * p.axis[2].input + i2);
      }
    }
  }
}

// Calls visit(flat input index) for every tap of output o's window; kNone for one on padding.
template <typename Visit>
void for_each_tap(const PoolProblem& p, const Position& o, Visit&& visit) {
  for (int64_t r0 = 0; r0 < p.axis[0].taps; ++r0) {
    const int64_t i0 = p.axis[0].input_at(o.at[0], r0);
    for (int64_t r1 = 0; r1 < p.axis[1].taps; ++r1) {
      const int64_t i1 = p.axis[1].input_at(o.at[1], r1);
      for (int64_t r2 = 0; r2 < p.axis[2].taps; ++r2) {
        const int64_t i2 = p.axis[2].input_at(o.at[2], r2);
        const bool on_input = i0 != kNone && i1 != kNone && i2 != kNone;
        visit(on_input ? (i0 * p.axis[1].input + i1) * p.axis[2].input + i2 : kNone);
      }
    }
  }
}

// Calls visit(flat output index) for every output whose window holds input i.
template <typename Visit>
void for_each_output(const PoolProblem& p, const Position& i, Visit&& visit) {
  for (int64_t r0 = 0; r0 < p.axis[0].taps; ++r0) {
    const int64_t o0 = p.axis[0].output_at(i.at[0], r0);
    if (o0 == kNone) continue;
    for (int64_t r1 = 0; r1 < p.axis[1].taps; ++r1) {
      const int64_t o1 = p.axis[1].output_at(i.at[1], r1);
      if (o1 == kNone) continue;
      for (int64_t r2 = 0; r2 < p.axis[2].taps; ++r2) {
        const int64_t o2 = p.axis[2].output_at(i.at[2], r2);
        if (o2 != kNone) visit((o0 * p.axis[1].output + o1) * p.axis[2].output + o2);
      }
    }
  }
}

}  // namespace convgrad::cpu
