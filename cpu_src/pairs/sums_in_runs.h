// Long sums side by side whose terms come in runs: the runs are added, then kSumRun of them, then those, as
// in common_src/long_sum.h.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "common_src/long_sum.h"

namespace convgrad::cpu {

// Used for one result after the other.
template <typename S>
class SumsInRuns {
 public:
  explicit SumsInRuns(int64_t numbers) : numbers_(numbers) {}

  // Starts from zero. A single run's sums are the result's, so they are accumulated in `result` if it is not
  // null.
  void begin(bool single, S* result) {
    single_ = single;
    if (!single || result == nullptr) run_.resize(numbers_);
    at_ = single && result != nullptr ? result : run_.data();
    std::fill(at_, at_ + numbers_, S{0});
    if (single) return;
    ended_ = 0;
    runs_.assign(numbers_, S{0});
    total_.assign(numbers_, S{0});
  }

  S* run() { return at_; }

  void end_run() {
    if (single_) return;
    move(run_, runs_);
    if (++ended_ % kSumRun == 0) move(runs_, total_);
  }

  S* totals() {
    if (single_) return at_;
    move(run_, runs_);
    move(runs_, total_);
    return total_.data();
  }

 private:
  static void move(std::vector<S>& src, std::vector<S>& dst) {
    for (size_t at = 0; at < src.size(); ++at) dst[at] += src[at], src[at] = S{0};
  }

  const int64_t numbers_;
  std::vector<S> run_, runs_, total_;
  S* at_ = nullptr;  // the current run's sums
  bool single_ = true;
  int64_t ended_ = 0;
};

}  // namespace convgrad::cpu
