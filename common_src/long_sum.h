// Sums any number of terms with the rounding error of a short sum.
//
// The error of n terms added one by one grows with n. Here kSumRun terms are summed first, then kSumRun of
// these sums, then those: the error grows with the length of each level. The order is fixed.
#pragma once

#include <cstdint>

#include "common_src/problem.h"

namespace convgrad {

inline constexpr int64_t kSumRun = 128;

template <typename Value>
class LongSum {
 public:
  CONVGRAD_HD void add(Value term) {
    run_ += term;
    if (++length_ % kSumRun != 0) return;
    runs_ += run_;
    run_ = 0;
    if (length_ % (kSumRun * kSumRun) != 0) return;
    total_ += runs_;
    runs_ = 0;
  }

  CONVGRAD_HD Value value() const { return total_ + (runs_ + run_); }

 private:
  Value run_ = 0, runs_ = 0, total_ = 0;
  int64_t length_ = 0;
};

}  // namespace convgrad
