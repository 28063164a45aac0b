// Copies rows of x along axis 2 for wgrad's tiles if they cannot be read in place: the channels of one group,
// widened, with zeros where a row is read beyond its ends. Or pairs: each number with that of the position
// that the next output meets by the same tap (bf16_dots.h).
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "common_src/integers.h"
#include "common_src/problem.h"
#include "cpu_src/aligned.h"
#include "cpu_src/bf16_dots.h"
#include "cpu_src/microkernels/avx512_bf16/pair_rows.h"
#include "cpu_src/microkernels/rows.h"

namespace convgrad::cpu {

// X is what tiles multiply: the type of the sums, or BFloat16Pair.
template <typename T, typename X>
class StagedRows {
 public:
  // Joined taps read the whole window of every output, others only what is on the input. Without joined taps
  // the next output meets the position `next` further on.
  StagedRows(const ConvProblem& problem, bool joined, int64_t next)
      : p_(problem), joined_(joined), next_(next) {}

  // Forgets all rows; the next ones are for outputs [first, last) of axis 2.
  void clear(int64_t first, int64_t last) {
    const Axis& axis = p_.axis[2];
    rows_.clear();
    tied_ = kNone;
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

  // If all taps use the same pairs: those of positions from `first` on, `count` positions `next` apart.
  void want_pairs(int64_t first, int64_t count) { first_pair_ = first, tied_ = count; }

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
      X* row = staged_.data() + at * length_;
      if constexpr (!kPairs) {
        fill_row(src, row, conversions);
      } else if (joined_) {
        padded_.resize(length_);
        fill_row(src, padded_.data(), conversions);
        const int64_t next = window_step() * p_.group_in(), paired = std::max<int64_t>(length_ - next, 0);
        avx512_bf16::zip_rows(padded_.data(), padded_.data() + next, 0, row, 0, 1, paired);
        avx512_bf16::zip_rows(padded_.data() + paired, nullptr, 0, row + paired, 0, 1, length_ - paired);
      } else {
        pair_row(src, row);
      }
    }
  }

  int64_t first() const { return first_; }  // the first position of a staged row
  // Returns the step from one output's window to the next.
  int64_t window_step() const { return gathered_ ? p_.axis[2].taps : p_.axis[2].stride; }
  const X* data() { return staged_.data(); }

  // Returns where the row begins in data().
  int64_t place(int64_t row) const {
    return (std::lower_bound(rows_.begin(), rows_.end(), row) - rows_.begin()) * length_;
  }

 private:
  static constexpr bool kPairs = std::is_same_v<X, BFloat16Pair>;

  // Copies a row as numbers, widened or not.
  template <typename To>
  void fill_row(const T* src, To* row, const RowConversions<T>& conversions) const {
    const Axis& axis = p_.axis[2];
    if (!gathered_) return fill_window(src, first_, length_ / p_.group_in(), row, conversions);
    for (int64_t j = 0; j < outputs_; ++j, row += axis.taps * p_.group_in())
      fill_window(src, first_ + j * axis.stride, axis.taps, row, conversions);
  }

  // Copies positions [first, first + length) of a row.
  template <typename To>
  void fill_window(const T* src, int64_t first, int64_t length, To* row,
                   const RowConversions<T>& conversions) const {
    const int64_t inputs = p_.axis[2].input, channels = p_.group_in();
    // The part that lies on the input, which may be empty.
    const int64_t lo = std::clamp<int64_t>(-first, 0, length),
                  hi = std::clamp<int64_t>(inputs - first, lo, length);
    std::fill(row, row + lo * channels, To{});
    std::fill(row + hi * channels, row + length * channels, To{});
    if (lo == hi) return;
    src += (first + lo) * p_.in_channels;
    if constexpr (kPairs) {
      if (p_.groups == 1) std::copy_n(src, (hi - lo) * channels, row + lo * channels);
      for (int64_t at = lo; p_.groups > 1 && at < hi; ++at, src += p_.in_channels)
        std::copy_n(src, channels, row + at * channels);
    } else if (p_.groups == 1) {
      conversions.widen(src, 0, row + lo * channels, 0, 1, (hi - lo) * channels);
    } else {
      conversions.widen(src, p_.in_channels, row + lo * channels, channels, hi - lo, channels);
    }
  }

  // Pairs the positions of a row that are on the input.
  void pair_row(const T* src, X* row) const {
    const int64_t channels = p_.group_in(), positions = length_ / channels;
    // Pairs `count` positions from `from` on, `step` apart.
    const auto zip = [&](int64_t from, int64_t step, int64_t count, bool with_next) {
      const T* const first = src + from * p_.in_channels;
      const T* const second = with_next ? first + next_ * p_.in_channels : nullptr;
      X* const dst = row + (from - first_) * channels;
      if (p_.groups == 1 && step == 1)
        avx512_bf16::zip_rows(first, second, 0, dst, 0, 1, count * channels);
      else
        avx512_bf16::zip_rows(first, second, step * p_.in_channels, dst, step * channels, count, channels);
    };
    if (tied_ != kNone) {
      zip(first_pair_, 2 * next_, tied_ / 2, true);
      zip(first_pair_ + (tied_ - 1) * next_, 1, tied_ % 2, false);
      return;
    }
    const int64_t paired = std::clamp<int64_t>(p_.axis[2].input - next_ - first_, 0, positions);
    zip(first_, 1, paired, true);
    zip(first_ + paired, 1, positions - paired, false);
  }

  const ConvProblem& p_;
  std::vector<int64_t> rows_;
  AlignedBuffer<X> staged_;
  std::vector<T> padded_;
  const bool joined_;
  const int64_t next_;
  bool gathered_ = false;
  int64_t first_ = 0, length_ = 0, outputs_ = 0;
  int64_t first_pair_ = 0, tied_ = kNone;
};

}  // namespace convgrad::cpu
