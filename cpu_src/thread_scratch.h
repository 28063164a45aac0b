// Memory in which a task works besides registers, and that its thread keeps for later tasks.
//
// A task needs it for less than a millisecond; memory that is new to the process costs as much to touch for
// the first time. Its size is what fits into a core's second cache, so a thread keeps little.
#pragma once

#include <cstdint>

#include "cpu_src/aligned.h"

namespace convgrad::cpu {

// Returns memory for so many numbers, with unspecified contents, until the same thread calls this again.
inline float* thread_scratch(int64_t numbers) {
  static thread_local AlignedBuffer<float> kept;
  kept.resize(numbers);
  return kept.data();
}

}  // namespace convgrad::cpu
