// What becomes of an activation's sums before they are stored, which in fprop may be more than a rounding:
//
//     y[n,o,k] = max(sum + b[k], 0)        either step, both or none
//
// in the type that sums run in, so that a layer's bias and activation cost no pass over y, and y is rounded
// once.
#pragma once

#include <cstdint>

#include "common_src/number.h"
#include "common_src/problem.h"

namespace convgrad {

// NaN stays NaN, and -0 becomes 0: the maximum of IEEE 754-2019, which is XLA's.
template <typename S>
CONVGRAD_HD inline S rectified(S sum) {
  return sum <= S{0} ? S{0} : sum;
}

struct Epilogue {
  const void* bias = nullptr;  // null, or a number of the problem's dtype for each of its output channels
  bool relu = false;
  bool unrounded = false;  // see ConvProblem

  CONVGRAD_HD bool any() const { return bias != nullptr || relu; }

  // b[k], or zero where there is none.
  template <typename Stored>
  CONVGRAD_HD Sum<Stored> bias_of(int64_t k) const {
    return bias == nullptr ? Sum<Stored>{0} : widen(static_cast<const Stored*>(bias)[k]);
  }

  // Of a sum, and of what bias_of() says of its channel.
  template <typename S>
  CONVGRAD_HD S finish(S sum, S bias_of_k) const {
    if (bias != nullptr) sum += bias_of_k;
    return relu ? rectified(sum) : sum;
  }
  template <typename Stored>
  CONVGRAD_HD Sum<Stored> finish_channel(Sum<Stored> sum, int64_t k) const {
    return finish(sum, bias_of<Stored>(k));
  }
};

// dgrad's sums are stored and no more.
inline Epilogue dgrad_epilogue(const ConvProblem& p) { return {nullptr, false, p.unrounded}; }

}  // namespace convgrad
