// Stores a kernel's sums in an array of the problem's dtype, or of f32 if 16-bit operands ask for an
// unrounded result.
#pragma once

#include <cstdint>
#include <type_traits>

#include "common_src/number.h"
#include "common_src/problem.h"
#include "cpu_src/microkernels/rows.h"

namespace convgrad::cpu {

template <typename T>
class Result {
 public:
  using S = Sum<T>;

  Result(void* first, const ConvProblem& p)
      : first_(static_cast<char*>(first)), holds_sums_(std::is_same_v<T, S> || p.unrounded) {}

  // Returns the result from number `numbers` on.
  Result operator+(int64_t numbers) const {
    Result moved = *this;
    moved.first_ += numbers * number_bytes();
    return moved;
  }
  int64_t number_bytes() const { return holds_sums_ ? sizeof(S) : sizeof(T); }
  void* data() const { return first_; }

  // Returns the array if it holds unrounded sums, which kernels may then accumulate in place; otherwise null.
  S* sums() const { return holds_sums_ ? reinterpret_cast<S*>(first_) : nullptr; }

  void store_one(int64_t at, S sum) const {
    if (holds_sums_)
      sums()[at] = sum;
    else
      reinterpret_cast<T*>(first_)[at] = narrow<T>(sum);
  }

  // Stores rows of sums. Each conversion belongs to one instruction set.
  void store(const RowConversions<T>& rounds, const RowConversions<S>& copies, const S* src,
             int64_t from_step, int64_t step, int64_t rows, int64_t length) const {
    if (holds_sums_)
      copies.narrow(src, from_step, sums(), step, rows, length);
    else
      rounds.narrow(src, from_step, reinterpret_cast<T*>(first_), step, rows, length);
  }

 private:
  char* first_;
  bool holds_sums_;
};

}  // namespace convgrad::cpu
