// How a problem is split into tasks and partial sums: pure functions of the problem.
#pragma once

#include <cstdint>

#include "ffi_src/problem.h"

namespace convgrad::cpu {

// Rows of dy that one bgrad task sums, and how many such tasks there are.
int64_t bgrad_rows_per_task(const BiasProblem&);
int64_t bgrad_tasks(const BiasProblem&);
int64_t bgrad_workspace_bytes(const BiasProblem&);

// Input channels of one filter tap that one wgrad task sums over all positions.
int64_t wgrad_channels_per_task(const ConvProblem&);

}  // namespace convgrad::cpu
