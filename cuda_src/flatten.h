// The problem with as few axes as it has the same sums on (common_src/merge_axes.h).
#pragma once

#include "common_src/problem.h"

namespace convgrad::cuda {

// Merges pointwise axes, and the batch too where all axes are pointwise. Pure function of the problem.
ConvProblem flatten(const ConvProblem&);

}  // namespace convgrad::cuda
