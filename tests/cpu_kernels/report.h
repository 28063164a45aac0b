// Collects what was tested and what failed.
#pragma once

#include <cstdint>
#include <cstdio>
#include <map>
#include <string>
#include <vector>

#include "tests/cpu_kernels/guarded.h"

namespace convgrad::test {

// The expected sums.
struct Expected {
  std::vector<double> exact, sum_of_abs;
  int64_t length = 1;  // products in one sum
};

class Report {
 public:
  // Records that `kernel` has been tested on one more problem.
  void tried(const std::string& kernel) { ++tries_[kernel]; }
  int64_t tries(const std::string& kernel) const {
    const auto found = tries_.find(kernel);
    return found == tries_.end() ? 0 : found->second;
  }

  void fail(const std::string& what, const std::string& why) {
    ++failures_;
    std::printf("FAILED %s: %s\n", what.c_str(), why.c_str());
  }

  // Expects every number to be within its bound; reports the worst of those outside.
  template <typename T>
  void expect_close(const std::string& what, const Guarded<T>& actual, const Expected& expected) {
    int64_t wrong = 0, worst = 0;
    double excess = 0;
    const std::vector<double> values = actual.doubles();
    for (size_t at = 0; at < values.size(); ++at) {
      const double allowed = bound<T>(expected.length, expected.sum_of_abs[at], expected.exact[at]);
      const double error = std::abs(values[at] - expected.exact[at]);
      if (error <= allowed) continue;  // false for NaN
      if (wrong++ == 0 || error / allowed > excess)
        worst = static_cast<int64_t>(at), excess = error / allowed;
    }
    if (wrong > 0) {
      fail(what, std::to_string(wrong) + " of " + std::to_string(values.size()) +
                     " numbers are off; number " + std::to_string(worst) + " is " +
                     std::to_string(values[worst]) + ", should be " + std::to_string(expected.exact[worst]) +
                     ", " + std::to_string(excess) + " times the error allowed");
    }
  }

  template <typename T>
  void expect_intact(const std::string& what, const Guarded<T>& buffer) {
    if (!buffer.intact()) fail(what, "memory beside the buffer was written");
  }

  int64_t failures() const { return failures_; }
  int64_t calls() const {
    int64_t sum = 0;
    for (const auto& [kernel, tries] : tries_) sum += tries;
    return sum;
  }

  void print() const {
    for (const auto& [kernel, tries] : tries_)
      std::printf("%-38s %6lld calls\n", kernel.c_str(), static_cast<long long>(tries));
  }

 private:
  std::map<std::string, int64_t> tries_;
  int64_t failures_ = 0;
};

}  // namespace convgrad::test
