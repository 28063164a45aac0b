// Results that no tap is tied to, written before the others where they are most of all.
#pragma once

#include <algorithm>
#include <cstdint>

#include "cpu_src/activation_plan.h"
#include "cpu_src/result.h"
#include "ffi_src/epilogue.h"
#include "ffi_src/number.h"

namespace convgrad::cpu {

inline constexpr int64_t kClearedNumbers = 1 << 16;  // by a task

inline int64_t cleared_pixels(const ActivationPlan& plan) {
  return std::max<int64_t>(kClearedNumbers / plan.problem.out_channels, 1);
}

inline int64_t clearing_tasks(const ActivationPlan& plan) {
  if (!plan.clears) return 0;
  const int64_t pixels = plan.problem.batch * plan.problem.outputs(), each = cleared_pixels(plan);
  return (pixels + each - 1) / each;
}

// What the epilogue makes of sums without a term, as numbers of type Stored.
template <typename T, typename Stored>
void clear_numbers(const ActivationPlan& plan, int64_t task, const Epilogue& epilogue, Stored* result) {
  const int64_t channels = plan.problem.out_channels, each = cleared_pixels(plan), first = task * each;
  const int64_t last = std::min(plan.problem.batch * plan.problem.outputs(), first + each);
  Stored* const begin = result + first * channels;
  Stored* const end = result + last * channels;
  if (!epilogue.any()) {
    std::fill(begin, end, narrow<Stored>(Sum<T>{0}));
    return;
  }
  for (int64_t k = 0; k < channels; ++k) begin[k] = narrow<Stored>(epilogue.finish_channel<T>(Sum<T>{0}, k));
  for (Stored* pixel = begin + channels; pixel < end; pixel += channels)
    std::copy(begin, begin + channels, pixel);
}

template <typename T>
void clear_results(const ActivationPlan& plan, int64_t task, const Epilogue& epilogue,
                   const Result<T>& result) {
  if (result.sums() != nullptr)
    clear_numbers<T>(plan, task, epilogue, result.sums());
  else
    clear_numbers<T>(plan, task, epilogue, const_cast<T*>(static_cast<const T*>(result.data())));
}

}  // namespace convgrad::cpu
