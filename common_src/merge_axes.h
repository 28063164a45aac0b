// Neighbouring axes along which a convolution only goes from position to position are one axis: a pointwise
// (1x1) convolution is one long row, and a matrix product without any arithmetic of positions. The merged
// problem has the same sums over the same memory, each in the same order of its terms.
#pragma once

#include "common_src/problem.h"

namespace convgrad {

// Whether each position of the axis meets itself alone.
inline bool is_pointwise(const Axis& axis) {
  return axis.taps == 1 && axis.stride == 1 && axis.pad_lo == 0 && axis.input_dilation == 1 &&
         axis.input == axis.output;
}

// An axis of so many positions that meet themselves alone.
inline Axis pointwise_axis(int64_t positions) {
  Axis axis;
  axis.input = axis.output = positions;
  return axis;
}

// Merges pointwise axes that are neighbours, each run of them into its last.
inline ConvProblem merge_pointwise_axes(const ConvProblem& problem) {
  ConvProblem merged = problem;
  for (int a = 1; a < kAxes; ++a) {
    if (!is_pointwise(merged.axis[a - 1]) || !is_pointwise(merged.axis[a])) continue;
    merged.axis[a] = pointwise_axis(merged.axis[a - 1].input * merged.axis[a].input);
    merged.axis[a - 1] = pointwise_axis(1);
  }
  return merged;
}

// Merges the batch into the outermost axis of more than one position, if that is pointwise.
inline ConvProblem merge_batch(const ConvProblem& problem) {
  ConvProblem merged = problem;
  int outer = 0;
  while (outer + 1 < kAxes && is_pointwise(merged.axis[outer]) && merged.axis[outer].input == 1) ++outer;
  if (!is_pointwise(merged.axis[outer])) return merged;
  merged.axis[outer] = pointwise_axis(merged.batch * merged.axis[outer].input);
  merged.batch = 1;
  return merged;
}

}  // namespace convgrad
