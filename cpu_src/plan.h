// How a problem is split into tasks and partial sums: pure functions of the problem.
#pragma once

#include <cstdint>

#include "ffi_src/problem.h"

namespace convgrad::cpu {

// Summing a long run in f32 one by one loses digits; sums of at most this many products are added up
// first and then added to each other. It is also the grain of bgrad's tasks.
inline constexpr int64_t kSumRun = 256;

// Rows of dy that one bgrad task sums, and how many such tasks there are.
int64_t bgrad_rows_per_task(const BiasProblem&);
int64_t bgrad_tasks(const BiasProblem&);
int64_t bgrad_workspace_bytes(const BiasProblem&);

// wgrad's tasks share no sum, so that it needs no partial sums; a plan that splits positions would.
int64_t wgrad_workspace_bytes(const ConvProblem&);

// Input channels of one filter tap that one wgrad task sums over all positions.
int64_t wgrad_channels_per_task(const ConvProblem&);

}  // namespace convgrad::cpu
