// Many long sums side by side (common_src/long_sum.h), which all get their next term together, so that the
// loop over them runs over contiguous memory.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "common_src/long_sum.h"
#include "common_src/number.h"

namespace convgrad::cpu {

template <typename T>
class LongSums {
 public:
  explicit LongSums(int64_t count) : run_(count), runs_(count), total_(count) {}

  void clear() {
    std::fill(run_.begin(), run_.end(), Sum<T>{0});
    if (length_ >= kSumRun) {
      std::fill(runs_.begin(), runs_.end(), Sum<T>{0});
      std::fill(total_.begin(), total_.end(), Sum<T>{0});
    }
    length_ = 0;
  }

  // Returns where to add the next term of each sum.
  Sum<T>* next() {
    if (length_ != 0 && length_ % kSumRun == 0) {
      move(run_, runs_);
      if (length_ % (kSumRun * kSumRun) == 0) move(runs_, total_);
    }
    ++length_;
    return run_.data();
  }

  const Sum<T>* totals() {
    if (length_ <= kSumRun) return run_.data();
    move(run_, runs_);
    move(runs_, total_);
    return total_.data();
  }

 private:
  static void move(std::vector<Sum<T>>& src, std::vector<Sum<T>>& dst) {
    for (size_t at = 0; at < src.size(); ++at) dst[at] += src[at];
    std::fill(src.begin(), src.end(), Sum<T>{0});
  }

  std::vector<Sum<T>> run_, runs_, total_;
  int64_t length_ = 0;
};

}  // namespace convgrad::cpu
