// Sums over a run of pairs: two positions are multiplied, channel by channel, then both advance by a step.
#pragma once

#include <cstdint>

#include "common_src/number.h"
#include "cpu_src/isa.h"

namespace convgrad::cpu {

// The channels of a, of b and of the sums are contiguous.
template <typename T>
struct PairRun {
  const T* a;
  const T* b;
  int64_t a_step, b_step, count;
};

template <typename T>
struct PairRuns {
  using S = Sum<T>;
  // sums[l] += a[l] * b[l]
  void (*lanes)(const PairRun<T>&, int64_t channels, S* sums);
  // sums[k] += sum over c of a[c] * b[c * row + k]
  void (*rows)(const PairRun<T>&, int64_t c_count, int64_t k_count, int64_t row, S* sums);
  // sums[c] += sum over k of a[k] * b[c * row + k]
  void (*dots)(const PairRun<T>&, int64_t c_count, int64_t k_count, int64_t row, S* sums);
  // sums[c * row + k] += a[c] * b[k]
  void (*outer)(const PairRun<T>&, int64_t c_count, int64_t k_count, int64_t row, S* sums);
};

CONVGRAD_PER_ISA(template <typename T> const PairRuns<T>& pair_runs())

}  // namespace convgrad::cpu
