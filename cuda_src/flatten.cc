#include "cuda_src/flatten.h"

#include <algorithm>

namespace convgrad::cuda {
namespace {

bool is_pointwise(const Axis& axis) {
  return axis.taps == 1 && axis.stride == 1 && axis.pad_lo == 0 && axis.input_dilation == 1 &&
         axis.input == axis.output;
}

Axis pointwise(int64_t positions) {
  Axis axis;
  axis.input = axis.output = positions;
  return axis;
}

}  // namespace

ConvProblem flatten(const ConvProblem& problem) {
  // A batch that is part of an image counts among its positions, for which kernels have 32 bits: some of them
  // for four times a position, or its few channels.
  constexpr int64_t kMost = int64_t{1} << 26;
  ConvProblem p = problem;
  const int64_t positions = std::max(p.inputs(), p.outputs());
  if (p.batch == 0 || positions == 0) return p;
  // The batch too only where nothing else would keep its own axis: an axis that is none is worth having, as
  // TMA has narrower fields for more of them.
  if (std::all_of(p.axis, p.axis + kAxes, is_pointwise) && p.batch < kMost / positions) {
    p.axis[0] = pointwise(p.batch * p.axis[0].input);
    p.batch = 1;
  }
  for (int a = 1; a < kAxes; ++a) {
    if (!is_pointwise(p.axis[a - 1]) || !is_pointwise(p.axis[a])) continue;
    p.axis[a] = pointwise(p.axis[a - 1].input * p.axis[a].input);
    p.axis[a - 1] = pointwise(1);
  }
  return p;
}

}  // namespace convgrad::cuda
