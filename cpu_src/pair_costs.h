// Whether a problem has so few products that taking them pair by pair is quicker than any other kernel.
#pragma once

#include "cpu_src/plan.h"
#include "ffi_src/problem.h"

namespace convgrad::cpu {

bool pairs_are_quicker(Op, const ConvProblem&);

}  // namespace convgrad::cpu
