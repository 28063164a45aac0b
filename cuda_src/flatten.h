// Merges axes of a problem without changing its sums (common_src/merge_axes.h).
#pragma once

#include "common_src/problem.h"

namespace convgrad::cuda {

// Merges neighbouring pointwise axes, and the batch too if all axes are pointwise. A pure function of the
// problem.
ConvProblem flatten(const ConvProblem&);

}  // namespace convgrad::cuda
