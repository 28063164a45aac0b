#include "cpu_src/plan.h"

#include <algorithm>

namespace convgrad::cpu {
namespace {

int64_t divide_up(int64_t count, int64_t size) { return (count + size - 1) / size; }

}  // namespace

int64_t bgrad_rows_per_task(const BiasProblem& problem) {
  // At least 256, which is work for a task, and at most 64 tasks, so that partial sums stay small beside dy.
  return std::max<int64_t>(divide_up(problem.rows, 64), 256);
}

int64_t bgrad_tasks(const BiasProblem& problem) {
  return std::max<int64_t>(divide_up(problem.rows, bgrad_rows_per_task(problem)), 1);
}

int64_t bgrad_workspace_bytes(const BiasProblem& problem) {
  const int64_t sum_bytes = std::max<int64_t>(bytes_of(problem.dtype), 4);
  return bgrad_tasks(problem) * problem.channels * sum_bytes;
}

int64_t wgrad_channels_per_task(const ConvProblem& problem) {
  // A tile of about 4096 sums stays in the first-level cache beside the rows that it is fed from; where that
  // gives few tasks (1x1 filters), channels are split further, so that there is work for many threads.
  constexpr int64_t kSums = 4096, kTasks = 16;
  const int64_t tiles = std::max<int64_t>(problem.taps() * problem.groups, 1);
  const int64_t for_cache = kSums / std::max<int64_t>(problem.group_out(), 1);
  const int64_t for_tasks = divide_up(problem.group_in(), divide_up(kTasks, tiles));
  return std::max<int64_t>(std::min({for_cache, for_tasks, problem.group_in()}), 1);
}

}  // namespace convgrad::cpu
