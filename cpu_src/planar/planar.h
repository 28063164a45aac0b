// fprop and dgrad for few channels on both sides, with a vector's lanes along the pixels.
#pragma once

#include "common_src/problem.h"

namespace convgrad::cpu {

// Reports whether the kernel serves fprop of a problem (for dgrad the transposed one): taps along the
// innermost axis alone, not far apart, without stride or input dilation there; and at most eight channels on
// each side. Depends on filter and steps alone.
bool planar_serves(const ConvProblem& problem);

// Reports whether the kernel pays: rows have enough pixels, and so few channels that lanes would stay empty
// otherwise.
bool planar_pays(const ConvProblem& problem);

}  // namespace convgrad::cpu
