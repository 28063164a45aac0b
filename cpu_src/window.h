// Visits the tied positions of one window: each tap that lies on the input, in row-major order; or, from the
// other side, each output whose window holds an input position.
#pragma once

#include <cstdint>

#include "common_src/problem.h"
#include "common_src/relation.h"

namespace convgrad::cpu {

struct Position {
  int64_t at[kAxes];
};

// Returns the position of flat index `flat` over axes of the given sizes.
inline Position unflatten(int64_t flat, int64_t size1, int64_t size2) {
  return {{flat / (size1 * size2), flat / size2 % size1, flat % size2}};
}

inline Position output_position(const PoolProblem& p, int64_t flat) {
  return unflatten(flat, p.axis[1].output, p.axis[2].output);
}

inline Position input_position(const PoolProblem& p, int64_t flat) {
  return unflatten(flat, p.axis[1].input, p.axis[2].input);
}

// Calls visit(flat tap, flat partner) for all combinations of what is tied along the three axes, in row-major
// order of the taps. taps1, size1 and so on are the axes' numbers of taps and of partners.
template <typename Visit>
void for_each_pair(const Progression (&tied)[kAxes], int64_t taps1, int64_t taps2, int64_t size1,
                   int64_t size2, Visit&& visit) {
  for (int64_t j0 = 0; j0 < tied[0].count; ++j0) {
    for (int64_t j1 = 0; j1 < tied[1].count; ++j1) {
      const int64_t r = (tied[0].at(j0) * taps1 + tied[1].at(j1)) * taps2;
      const int64_t partner = (tied[0].partner_at(j0) * size1 + tied[1].partner_at(j1)) * size2;
      for (int64_t j2 = 0; j2 < tied[2].count; ++j2)
        visit(r + tied[2].at(j2), partner + tied[2].partner_at(j2));
    }
  }
}

// Calls visit(tap, input), both flat, for every tap of output o's window that is on the input.
template <typename Visit>
void for_each_input(const Axis (&axis)[kAxes], const Position& o, Visit&& visit) {
  const auto tied = [&](int a) {
    return taps_of_output(axis[a]).from(axis[a].pad_lo - o.at[a] * axis[a].stride);
  };
  for_each_pair({tied(0), tied(1), tied(2)}, axis[1].taps, axis[2].taps, axis[1].input, axis[2].input, visit);
}

// Calls visit(flat input index) for every tap of output o's window, in row-major order. Taps on padding that
// follow each other are one visit(kNone).
template <typename Visit>
void for_each_stretch(const PoolProblem& p, const Position& o, Visit&& visit) {
  int64_t next = 0;
  for_each_input(p.axis, o, [&](int64_t r, int64_t i) {
    if (r != next) visit(kNone);
    visit(i);
    next = r + 1;
  });
  if (next != p.taps()) visit(kNone);
}

// Calls visit(tap, output), both flat, for every output whose window holds input i.
template <typename Visit>
void for_each_output(const Axis (&axis)[kAxes], const Position& i, Visit&& visit) {
  const auto tied = [&](int a) { return taps_of_input(axis[a], i.at[a]); };
  for_each_pair({tied(0), tied(1), tied(2)}, axis[1].taps, axis[2].taps, axis[1].output, axis[2].output,
                visit);
}

}  // namespace convgrad::cpu
