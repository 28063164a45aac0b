// Rows of x along axis 2 as wgrad's tiles need them where they cannot be read in place: the channels of one
// group, widened, with zeros where a row is read beyond its ends.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "cpu_src/microkernels/rows.h"
#include "ffi_src/problem.h"

namespace convgrad::cpu {

template <typename T>
class StagedRows {
 public:
  explicit StagedRows(const ConvProblem& problem) : p_(problem) {}

  // Forgets all rows; the next ones are for outputs [first, last) of axis 2.
  void clear(int64_t first, int64_t last) {
    const Axis& axis = p_.axis[2];
    rows_.clear();
    first_ = divide_down(first * axis.stride - axis.pad_lo, axis.input_dilation);
    const int64_t end = divide_down(
        (last - 1) * axis.stride - axis.pad_lo + (axis.taps - 1) * axis.filter_dilation, axis.input_dilation);
    length_ = (end + 1 - first_) * p_.group_in();
  }

  // Rows are counted over the batch and axes 0 and 1.
  void want(int64_t row) { rows_.push_back(row); }

  // x begins at the group's first channel.
  void fill(const T* x, const RowConversions<T>& conversions) {
    std::sort(rows_.begin(), rows_.end());
    rows_.erase(std::unique(rows_.begin(), rows_.end()), rows_.end());
    const int64_t inputs = p_.axis[2].input, channels = p_.group_in(), length = length_ / channels;
    // The part of a staged row that lies on the input; there may be none.
    const int64_t lo = std::clamp<int64_t>(-first_, 0, length),
                  hi = std::clamp<int64_t>(inputs - first_, lo, length);
    staged_.resize(rows_.size() * length_);
    for (size_t at = 0; at < rows_.size(); ++at) {
      Sum<T>* const row = staged_.data() + at * length_;
      std::fill(row, row + lo * channels, Sum<T>{0});
      std::fill(row + hi * channels, row + length_, Sum<T>{0});
      if (lo == hi) continue;
      const T* from = x + (rows_[at] * inputs + first_ + lo) * p_.in_channels;
      if (p_.groups == 1) {
        conversions.widen(from, 0, row + lo * channels, 0, 1, (hi - lo) * channels);
      } else {
        conversions.widen(from, p_.in_channels, row + lo * channels, channels, hi - lo, channels);
      }
    }
  }

  int64_t first() const { return first_; }  // the position that a staged row begins with
  const Sum<T>* data() const { return staged_.data(); }

  // Where the row begins in data().
  int64_t place(int64_t row) const {
    return (std::lower_bound(rows_.begin(), rows_.end(), row) - rows_.begin()) * length_;
  }

 private:
  static int64_t divide_down(int64_t a, int64_t b) { return a / b - (a % b != 0 && (a < 0) != (b < 0)); }

  const ConvProblem& p_;
  std::vector<int64_t> rows_;
  std::vector<Sum<T>> staged_;
  int64_t first_ = 0, length_ = 0;
};

}  // namespace convgrad::cpu
