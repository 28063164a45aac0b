// fprop and dgrad of few channels on both sides, with the lanes of a vector along the pixels.
#pragma once

#include "common_src/problem.h"

namespace convgrad::cpu {

// Whether the kernel serves fprop of a problem, and so dgrad of the transposed one: taps along the innermost
// axis alone, which do not lie far apart, with neither a stride nor an input dilation there; and at most
// eight channels on each side. Depends on filter and steps alone.
bool planar_serves(const ConvProblem& problem);

// Whether it pays: rows of enough pixels, and so few channels that the lanes would stay empty otherwise.
bool planar_pays(const ConvProblem& problem);

}  // namespace convgrad::cpu
