// Launches written down instead of run: which kernels a call would start, and with what.
#pragma once

#include <cstddef>
#include <vector>

#include "cuda_emulator/vector_types.h"

namespace cuda_emulator {

struct Launch {
  const void* kernel;
  dim3 grid, block;
  size_t shared_bytes;  // that the launch asks for
};

// While one of these exists, launches from its OS thread are checked, appended to `launches` and not run. So
// the arrays need not be there, whatever their size.
class RecordedLaunches {
 public:
  RecordedLaunches();
  ~RecordedLaunches();
  RecordedLaunches(const RecordedLaunches&) = delete;
  RecordedLaunches& operator=(const RecordedLaunches&) = delete;

  std::vector<Launch> launches;
};

}  // namespace cuda_emulator
