// A kernel launch on the CPU: one or more stages, each a number of independent tasks.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

namespace convgrad::cpu {

struct Stage {
  int64_t tasks = 0;
  std::function<void(int64_t task)> run;  // called once a task, from any thread
};

// A stage begins when every task of the one before has ended. The split into tasks is a function of the
// problem alone, never of the thread count, so that every sum has one order and the same bits come out
// however many threads there are.
struct Work {
  std::vector<Stage> stages;
};

}  // namespace convgrad::cpu
