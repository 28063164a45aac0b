#include "cpu_src/plan.h"

#include <algorithm>

namespace convgrad::cpu {
namespace {

int64_t divide_up(int64_t count, int64_t size) { return (count + size - 1) / size; }

}  // namespace

int64_t bgrad_rows_per_task(const BiasProblem& problem) {
  // At most 64 tasks, so that the partial sums stay small beside dy.
  return divide_up(std::max<int64_t>(divide_up(problem.rows, 64), 1), kSumRun) * kSumRun;
}

int64_t bgrad_tasks(const BiasProblem& problem) {
  return std::max<int64_t>(divide_up(problem.rows, bgrad_rows_per_task(problem)), 1);
}

int64_t bgrad_workspace_bytes(const BiasProblem& problem) {
  const int64_t sum_bytes = std::max<int64_t>(bytes_of(problem.dtype), 4);
  return bgrad_tasks(problem) * problem.channels * sum_bytes;
}

int64_t wgrad_workspace_bytes(const ConvProblem&) { return 0; }

int64_t wgrad_channels_per_task(const ConvProblem& problem) {
  // A tile of about 4096 sums stays in the first-level cache beside the rows that it is fed from.
  return std::clamp<int64_t>(4096 / std::max<int64_t>(problem.group_out(), 1), 1,
                             std::max<int64_t>(problem.group_in(), 1));
}

}  // namespace convgrad::cpu
