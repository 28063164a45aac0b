#include "cpu_src/batch_norm/plan.h"

#include <algorithm>

#include "common_src/integers.h"

namespace convgrad::cpu {
namespace {

constexpr int64_t kMostNormTasks = 64;

}  // namespace

int64_t norm_rows_per_task(const NormProblem& problem) {
  // At least 2^16 numbers per task, which take about 20 microseconds, and few tasks, so that partial sums
  // stay small compared with x.
  const int64_t least = divide_up(1 << 16, std::max<int64_t>(problem.channels, 1));
  return divide_up(std::max(divide_up(problem.rows, kMostNormTasks), least), 64) * 64;
}

int64_t norm_tasks(const NormProblem& problem) {
  return std::max<int64_t>(divide_up(problem.rows, norm_rows_per_task(problem)), 1);
}

int64_t norm_workspace_bytes(const NormProblem& problem, bool any_rows) {
  const int64_t tasks = any_rows ? kMostNormTasks : norm_tasks(problem), doubles = 2;
  return problem.groups * tasks * problem.channels * doubles * static_cast<int64_t>(sizeof(double));
}

}  // namespace convgrad::cpu
