// Converts positions between flat and per-axis form, and visits everything that the relation ties to a
// position: each tap of a window that lies on the input, in row-major order; or, from the other side, each
// output whose window holds an input position.
#pragma once

#include <cstdint>

#include "common_src/problem.h"
#include "common_src/relation.h"

namespace convgrad {

// The coordinates of a position: n, and (o0,o1,o2), (i0,i1,i2) or, with n = 0, (r0,r1,r2).
struct Coord {
  int64_t n;
  int64_t at[kAxes];
};

CONVGRAD_HD inline Coord coord_of(int64_t flat, int64_t extent0, int64_t extent1, int64_t extent2) {
  Coord coord;
  coord.at[2] = flat % extent2;
  flat /= extent2;
  coord.at[1] = flat % extent1;
  flat /= extent1;
  coord.at[0] = flat % extent0;
  coord.n = flat / extent0;
  return coord;
}

CONVGRAD_HD inline Coord input_coord(const Axis (&axis)[kAxes], int64_t flat) {
  return coord_of(flat, axis[0].input, axis[1].input, axis[2].input);
}
CONVGRAD_HD inline Coord output_coord(const Axis (&axis)[kAxes], int64_t flat) {
  return coord_of(flat, axis[0].output, axis[1].output, axis[2].output);
}
CONVGRAD_HD inline Coord tap_coord(const Axis (&axis)[kAxes], int64_t flat) {
  return coord_of(flat, axis[0].taps, axis[1].taps, axis[2].taps);
}

// Calls visit(r, partner), both flat, for all combinations of what is tied along the three axes; taps1, size1
// and so on are the axes' sizes.
template <typename Visit>
CONVGRAD_HD inline void for_each_pair(const Progression& tied0, const Progression& tied1,
                                      const Progression& tied2, int64_t taps1, int64_t taps2, int64_t size1,
                                      int64_t size2, Visit visit) {
  for (int64_t j0 = 0; j0 < tied0.count; ++j0) {
    const int64_t r0 = tied0.at(j0), partner0 = tied0.partner_at(j0);
    for (int64_t j1 = 0; j1 < tied1.count; ++j1) {
      const int64_t r1 = r0 * taps1 + tied1.at(j1), partner1 = partner0 * size1 + tied1.partner_at(j1);
      for (int64_t j2 = 0; j2 < tied2.count; ++j2)
        visit(r1 * taps2 + tied2.at(j2), partner1 * size2 + tied2.partner_at(j2));
    }
  }
}

// Calls visit(r, i), both flat, for every tap r that ties `o` to an input i, in row-major order.
template <typename Visit>
CONVGRAD_HD inline void for_each_input(const Axis (&axis)[kAxes], const int64_t (&o)[kAxes], Visit visit) {
  const auto tied = [&](int a) {
    return taps_of_output(axis[a]).from(axis[a].pad_lo - o[a] * axis[a].stride);
  };
  for_each_pair(tied(0), tied(1), tied(2), axis[1].taps, axis[2].taps, axis[1].input, axis[2].input, visit);
}

// Calls visit(i), flat, for every tap of the window at `o`, in row-major order. Taps on padding that follow
// each other are one visit(kNone).
template <typename Visit>
CONVGRAD_HD inline void for_each_stretch(const Axis (&axis)[kAxes], const int64_t (&o)[kAxes], Visit visit) {
  int64_t next = 0;
  for_each_input(axis, o, [&](int64_t r, int64_t i) {
    if (r != next) visit(kNone);
    visit(i);
    next = r + 1;
  });
  if (next != axis[0].taps * axis[1].taps * axis[2].taps) visit(kNone);
}

// Calls visit(r, o), both flat, for every tap r that ties `i` to an output o, in row-major order.
template <typename Visit>
CONVGRAD_HD inline void for_each_output(const Axis (&axis)[kAxes], const int64_t (&i)[kAxes], Visit visit) {
  const auto tied = [&](int a) { return taps_of_input(axis[a], i[a]); };
  for_each_pair(tied(0), tied(1), tied(2), axis[1].taps, axis[2].taps, axis[1].output, axis[2].output, visit);
}

}  // namespace convgrad
