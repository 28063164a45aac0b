#include "cuda_src/flatten.h"

#include <algorithm>

#include "common_src/merge_axes.h"

namespace convgrad::cuda {

ConvProblem flatten(const ConvProblem& problem) {
  // A batch that is part of an image counts among its positions, for which kernels have 32 bits: some of them
  // for four times a position, or its few channels.
  constexpr int64_t kMost = int64_t{1} << 26;
  const int64_t positions = std::max(problem.inputs(), problem.outputs());
  if (problem.batch == 0 || positions == 0) return problem;
  const ConvProblem merged = merge_pointwise_axes(problem);
  // The batch only where no other axis is kept: an axis of one position is worth having, as TMA's fields are
  // the narrower the more axes there are.
  const bool all = std::all_of(problem.axis, problem.axis + kAxes, is_pointwise);
  return all && problem.batch < kMost / positions ? merge_batch(merged) : merged;
}

}  // namespace convgrad::cuda
