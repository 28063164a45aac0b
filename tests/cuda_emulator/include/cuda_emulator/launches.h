// Records launches instead of running them: which kernels a call would start, and with which parameters.
#pragma once

#include <cstddef>
#include <vector>

#include "cuda_emulator/vector_types.h"

namespace cuda_emulator {

struct Launch {
  const void* kernel;
  dim3 grid, block;
  size_t shared_bytes;  // requested by the launch
};

// While one of these exists, launches from its OS thread are checked, appended to `launches` and not run. So
// the arrays need not exist, whatever their size.
class RecordedLaunches {
 public:
  RecordedLaunches();
  ~RecordedLaunches();
  RecordedLaunches(const RecordedLaunches&) = delete;
  RecordedLaunches& operator=(const RecordedLaunches&) = delete;

  std::vector<Launch> launches;
};

}  // namespace cuda_emulator
