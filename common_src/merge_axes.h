// Merges neighbouring pointwise axes into one. A pointwise (1x1) convolution becomes one long row, a matrix
// product without arithmetic on positions. The merged problem has the same sums over the same memory, with
// the terms in the same order.
#pragma once

#include "common_src/problem.h"

namespace convgrad {

// Reports whether each output of the axis is tied to the input of the same index and no other.
inline bool is_pointwise(const Axis& axis) {
  return axis.taps == 1 && axis.stride == 1 && axis.pad_lo == 0 && axis.input_dilation == 1 &&
         axis.input == axis.output;
}

// Returns a pointwise axis of so many positions.
inline Axis pointwise_axis(int64_t positions) {
  Axis axis;
  axis.input = axis.output = positions;
  return axis;
}

// Merges each run of neighbouring pointwise axes into its last axis.
inline ConvProblem merge_pointwise_axes(const ConvProblem& problem) {
  ConvProblem merged = problem;
  for (int a = 1; a < kAxes; ++a) {
    if (!is_pointwise(merged.axis[a - 1]) || !is_pointwise(merged.axis[a])) continue;
    merged.axis[a] = pointwise_axis(merged.axis[a - 1].input * merged.axis[a].input);
    merged.axis[a - 1] = pointwise_axis(1);
  }
  return merged;
}

// Merges the batch into the outermost axis of more than one position if that axis is pointwise.
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
