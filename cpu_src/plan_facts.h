// What the plans decide about a call, told by the plans themselves, for people to read.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "common_src/problem.h"
#include "cpu_src/plan.h"

namespace convgrad::cpu {

// Names are those of jax_convgrad/instruments/plan_command.py. Every call has "kernel", "reason", "tasks" (of
// each phase) and "workspace_bytes"; the others depend on the kernel.
using Fact = std::variant<bool, int64_t, std::string, std::vector<int64_t>>;
using Facts = std::vector<std::pair<std::string, Fact>>;

// Throws std::invalid_argument where the kernel asked for does not serve the op.
Facts plan_facts(Op, const ConvProblem&, Request);
Facts plan_facts(const BiasProblem&, Request);

}  // namespace convgrad::cpu
