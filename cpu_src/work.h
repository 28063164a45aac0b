// A kernel launch on the CPU: independent tasks, and what remains when all of them are done.
#pragma once

#include <cstdint>
#include <functional>

namespace convgrad::cpu {

// The split into tasks is a function of the problem alone, never of the thread count, so that every
// sum has one order and the same bits come out however many threads there are.
struct Work {
  int64_t tasks = 0;
  std::function<void(int64_t task)> run;  // called once a task, from any thread
  std::function<void()> finish;           // called once, after every task; may be empty
};

}  // namespace convgrad::cpu
