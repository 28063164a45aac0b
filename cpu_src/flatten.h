// The problem with as few axes as it has the same sums on.
#pragma once

#include "common_src/merge_axes.h"

namespace convgrad::cpu {

// Merges pointwise axes, and the batch into the outermost of them where nothing lies between.
inline ConvProblem flatten(const ConvProblem& problem) { return merge_batch(merge_pointwise_axes(problem)); }

}  // namespace convgrad::cpu
