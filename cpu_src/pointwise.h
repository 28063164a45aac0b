// 1x1 layers of few channels on both sides.
#pragma once

#include "ffi_src/problem.h"

namespace convgrad::cpu {

// Whether the kernel serves fprop of a problem, and so dgrad of the transposed one: a single tap, at most
// eight channels on each side, and neighbours along the innermost axis that stay neighbours.
bool pointwise_serves(const ConvProblem& problem);

// Whether it pays: rows of enough pixels.
bool pointwise_pays(const ConvProblem& problem);

}  // namespace convgrad::cpu
