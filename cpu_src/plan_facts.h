// Reports the plans' decisions about a call for people to read.
#pragma once

#include "common_src/facts.h"
#include "common_src/problem.h"
#include "cpu_src/plan.h"

namespace convgrad::cpu {

// Returns the facts of a call. Every call has "kernel", "reason", "tasks" (of each stage) and
// "workspace_bytes"; the others depend on the kernel. Throws std::invalid_argument if the kernel asked for
// does not serve the op.
Facts plan_facts(Op, const ConvProblem&, Request);
Facts plan_facts(const BiasProblem&, Request);

}  // namespace convgrad::cpu
