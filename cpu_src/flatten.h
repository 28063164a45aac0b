// Merges axes of a problem without changing its sums (common_src/merge_axes.h).
#pragma once

#include "common_src/merge_axes.h"

namespace convgrad::cpu {

// Merges neighbouring pointwise axes, and the batch into the outermost of them if no other axis lies between.
inline ConvProblem flatten(const ConvProblem& problem) { return merge_batch(merge_pointwise_axes(problem)); }

}  // namespace convgrad::cpu
