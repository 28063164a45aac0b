// The counters of the launch that this OS thread runs.
#pragma once

#include "cuda_emulator/counters.h"

namespace cuda_emulator {

// Null while counting is off.
extern __thread Counters* launch_counters;

// Counts until the end of the scope, if counting is on.
class CountedLaunch {
 public:
  CountedLaunch();
  ~CountedLaunch();
  CountedLaunch(const CountedLaunch&) = delete;
  CountedLaunch& operator=(const CountedLaunch&) = delete;

 private:
  Counters counters_;
};

}  // namespace cuda_emulator
