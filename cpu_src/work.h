// A kernel launch on the CPU: one or more stages, each with a number of independent tasks.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

namespace convgrad::cpu {

struct Stage {
  int64_t tasks = 0;
  std::function<void(int64_t task)> run;  // called once per task, from any thread
};

// A stage begins when every task of the stage before has ended. The split into tasks depends on the problem
// alone, not on the number of threads, so that every sum has one order and gives the same bits with any
// number of threads.
struct Work {
  std::vector<Stage> stages;
};

}  // namespace convgrad::cpu
