#include "cuda_src/flatten.h"

#include <algorithm>

#include "common_src/merge_axes.h"

namespace convgrad::cuda {

ConvProblem flatten(const ConvProblem& problem) {
  // A merged batch counts among an image's positions, which kernels count in 32 bits, some of them with a
  // factor of four or of their few channels.
  constexpr int64_t kMost = int64_t{1} << 26;
  const int64_t positions = std::max(problem.inputs(), problem.outputs());
  if (problem.batch == 0 || positions == 0) return problem;
  const ConvProblem merged = merge_pointwise_axes(problem);
  // Merges the batch only if no other axis remains. An axis of one position is worth removing, because TMA's
  // fields have fewer bits per axis the more axes there are.
  const bool all = std::all_of(problem.axis, problem.axis + kAxes, is_pointwise);
  return all && problem.batch < kMost / positions ? merge_batch(merged) : merged;
}

}  // namespace convgrad::cuda
