// Reports whether a problem has so few products that the kernel "pairs" is faster than the kernel that would
// serve it otherwise.
#pragma once

#include "common_src/problem.h"
#include "cpu_src/plan.h"

namespace convgrad::cpu {

bool pairs_are_quicker(Kernel other, Op, const ConvProblem&);

}  // namespace convgrad::cpu
