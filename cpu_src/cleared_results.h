// Writes results that no tap is tied to, before the others are computed, for problems where these are the
// majority.
#pragma once

#include <algorithm>
#include <cstdint>

#include "common_src/epilogue.h"
#include "common_src/integers.h"
#include "common_src/number.h"
#include "cpu_src/result.h"
#include "cpu_src/tiled/activation_plan.h"

namespace convgrad::cpu {

inline constexpr int64_t kClearedNumbers = 1 << 16;  // per task

inline int64_t cleared_pixels(int64_t channels) { return std::max<int64_t>(kClearedNumbers / channels, 1); }

inline int64_t clearing_tasks(int64_t pixels, int64_t channels) {
  const int64_t each = cleared_pixels(channels);
  return divide_up(pixels, each);
}

// Writes what the epilogue makes of sums without a term, as numbers of type Stored.
template <typename T, typename Stored>
void clear_numbers(int64_t pixels, int64_t channels, int64_t task, const Epilogue& epilogue, Stored* result) {
  const int64_t each = cleared_pixels(channels), first = task * each;
  Stored* const begin = result + first * channels;
  Stored* const end = result + std::min(pixels, first + each) * channels;
  if (!epilogue.any()) {
    std::fill(begin, end, narrow<Stored>(Sum<T>{0}));
    return;
  }
  for (int64_t k = 0; k < channels; ++k) begin[k] = narrow<Stored>(epilogue.finish_channel<T>(Sum<T>{0}, k));
  for (Stored* pixel = begin + channels; pixel < end; pixel += channels)
    std::copy(begin, begin + channels, pixel);
}

template <typename T>
void clear_results(int64_t pixels, int64_t channels, int64_t task, const Epilogue& epilogue,
                   const Result<T>& result) {
  if (result.sums() != nullptr)
    clear_numbers<T>(pixels, channels, task, epilogue, result.sums());
  else
    clear_numbers<T>(pixels, channels, task, epilogue, const_cast<T*>(static_cast<const T*>(result.data())));
}

// The same for the results of a plan.
inline int64_t clearing_tasks(const ActivationPlan& plan) {
  const ConvProblem& p = plan.problem;
  return plan.clears ? clearing_tasks(p.batch * p.outputs(), p.out_channels) : 0;
}
template <typename T>
void clear_results(const ActivationPlan& plan, int64_t task, const Epilogue& epilogue,
                   const Result<T>& result) {
  const ConvProblem& p = plan.problem;
  clear_results(p.batch * p.outputs(), p.out_channels, task, epilogue, result);
}

}  // namespace convgrad::cpu
