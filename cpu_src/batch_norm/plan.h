// Splits batch norm into tasks: pure functions of the problem.
#pragma once

#include <cstdint>

#include "common_src/batch_norm.h"

namespace convgrad::cpu {

// Return the rows of one task, and the tasks of one group.
int64_t norm_rows_per_task(const NormProblem&);
int64_t norm_tasks(const NormProblem&);

// Returns the bytes of the workspace of a pass that sums. With `any_rows` it is enough for every number of
// rows, which may not be known yet when a program is traced.
int64_t norm_workspace_bytes(const NormProblem&, bool any_rows);

}  // namespace convgrad::cpu
