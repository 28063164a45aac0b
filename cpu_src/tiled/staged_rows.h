// Copies rows of x along axis 2 for wgrad's tiles if they cannot be read in place: the channels of one group,
// widened, with zeros where a row is read beyond its ends.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "common_src/integers.h"
#include "common_src/problem.h"
#include "cpu_src/microkernels/rows.h"

namespace convgrad::cpu {

template <typename T>
class StagedRows {
 public:
  // Joined taps read the whole window of every output, others only what is on the input.
  StagedRows(const ConvProblem& problem, bool joined) : p_(problem), joined_(joined) {}

  // Forgets all rows; the next ones are for outputs [first, last) of axis 2.
  void clear(int64_t first, int64_t last) {
    const Axis& axis = p_.axis[2];
    rows_.clear();
    outputs_ = last - first;
    first_ = divide_down(first * axis.stride - axis.pad_lo, axis.input_dilation);
    int64_t end = divide_down((last - 1) * axis.stride - axis.pad_lo + (axis.taps - 1) * axis.filter_dilation,
                              axis.input_dilation) +
                  1;
    if (!joined_) {
      first_ = std::clamp<int64_t>(first_, 0, axis.input);
      end = std::clamp(end, first_, axis.input);
    }
    // Windows with large gaps between them are copied next to each other.
    gathered_ = joined_ && axis.stride > axis.taps;
    length_ = (gathered_ ? outputs_ * axis.taps : end - first_) * p_.group_in();
  }

  // Asks for a row, numbered over the batch and axes 0 and 1.
  void want(int64_t row) { rows_.push_back(row); }

  // Copies the rows asked for. x begins at the group's first channel.
  void fill(const T* x, const RowConversions<T>& conversions) {
    std::sort(rows_.begin(), rows_.end());
    rows_.erase(std::unique(rows_.begin(), rows_.end()), rows_.end());
    const Axis& axis = p_.axis[2];
    staged_.resize(rows_.size() * length_);
    for (size_t at = 0; at < rows_.size(); ++at) {
      const T* src = x + rows_[at] * axis.input * p_.in_channels;
      Sum<T>* row = staged_.data() + at * length_;
      if (!gathered_) {
        fill_window(src, first_, length_ / p_.group_in(), row, conversions);
        continue;
      }
      for (int64_t j = 0; j < outputs_; ++j, row += axis.taps * p_.group_in())
        fill_window(src, first_ + j * axis.stride, axis.taps, row, conversions);
    }
  }

  int64_t first() const { return first_; }  // the first position of a staged row
  // Returns the step from one output's window to the next.
  int64_t window_step() const { return gathered_ ? p_.axis[2].taps : p_.axis[2].stride; }
  const Sum<T>* data() const { return staged_.data(); }

  // Returns where the row begins in data().
  int64_t place(int64_t row) const {
    return (std::lower_bound(rows_.begin(), rows_.end(), row) - rows_.begin()) * length_;
  }

 private:
  // Copies positions [first, first + length) of a row.
  void fill_window(const T* src, int64_t first, int64_t length, Sum<T>* row,
                   const RowConversions<T>& conversions) const {
    const int64_t inputs = p_.axis[2].input, channels = p_.group_in();
    // The part that lies on the input, which may be empty.
    const int64_t lo = std::clamp<int64_t>(-first, 0, length),
                  hi = std::clamp<int64_t>(inputs - first, lo, length);
    std::fill(row, row + lo * channels, Sum<T>{0});
    std::fill(row + hi * channels, row + length * channels, Sum<T>{0});
    if (lo == hi) return;
    src += (first + lo) * p_.in_channels;
    if (p_.groups == 1) {
      conversions.widen(src, 0, row + lo * channels, 0, 1, (hi - lo) * channels);
    } else {
      conversions.widen(src, p_.in_channels, row + lo * channels, channels, hi - lo, channels);
    }
  }

  const ConvProblem& p_;
  std::vector<int64_t> rows_;
  std::vector<Sum<T>> staged_;
  const bool joined_;
  bool gathered_ = false;
  int64_t first_ = 0, length_ = 0, outputs_ = 0;
};

}  // namespace convgrad::cpu
