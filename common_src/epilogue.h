// The epilogue of fprop: what happens to a sum before it is stored,
//
//     y[n,o,k] = max(sum + b[k], 0)        with either step, both, or neither
//
// in the type that sums run in. So a layer's bias and activation need no pass over y, and y is rounded once.
#pragma once

#include <cstdint>

#include "common_src/number.h"
#include "common_src/problem.h"

namespace convgrad {

// Rectifies a sum: NaN stays NaN, and -0 becomes 0, as in the maximum of IEEE 754-2019, which XLA uses.
template <typename S>
CONVGRAD_HD inline S rectified(S sum) {
  return sum <= S{0} ? S{0} : sum;
}

struct Epilogue {
  const void* bias = nullptr;  // null, or one number of the problem's dtype per output channel
  bool relu = false;
  bool unrounded = false;  // see ConvProblem

  CONVGRAD_HD bool any() const { return bias != nullptr || relu; }

  // Returns b[k], or zero if there is no bias.
  template <typename Stored>
  CONVGRAD_HD Sum<Stored> bias_of(int64_t k) const {
    return bias == nullptr ? Sum<Stored>{0} : widen(static_cast<const Stored*>(bias)[k]);
  }

  // Finishes a sum, given what bias_of() returns for its channel.
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

// Returns an epilogue that only stores, as dgrad has no bias and no activation.
inline Epilogue dgrad_epilogue(const ConvProblem& p) { return {nullptr, false, p.unrounded}; }

}  // namespace convgrad
