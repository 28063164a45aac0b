// Batch norm, per channel k over the m positions of a batch,
//
//     z = (x - mean[k]) * mul[k] + bias[k]        mul = scale / sqrt(variance + epsilon)
//     y = activation(z)
//
// and its derivatives, which are all made of g = dy * activation'(z) and two sums of it (docs/batch_norm.md).
#pragma once

#include <cstdint>

#include "common_src/problem.h"

namespace convgrad {

enum class Activation : int8_t { kNone, kRelu, kRelu6 };
inline constexpr int kActivations = 3;

// x and y are [groups, rows, channels]. Everything that belongs to a channel is [groups, channels], in the
// type that sums run in: groups share nothing.
struct NormProblem {
  DType dtype = DType::kF32;
  int64_t groups = 1, rows = 1, channels = 1;
  Activation activation = Activation::kNone;

  CONVGRAD_HD int64_t numbers() const { return groups * rows * channels; }
};

// What one channel's numbers are normalised with, and what its gradient is made of:
//
//     dx = mul * g + slope * (x - mean) + offset
struct NormVectors {
  const void *mean = nullptr, *mul = nullptr, *bias = nullptr, *slope = nullptr, *offset = nullptr;
};

// Returns activation(z). NaN stays NaN.
template <typename S>
CONVGRAD_HD inline S activated(Activation activation, S z) {
  if (activation != Activation::kNone && z <= S{0}) return S{0};
  return activation == Activation::kRelu6 && z >= S{6} ? S{6} : z;
}

// Returns whether the activation's derivative at z is 1; otherwise it is 0, also at its kinks.
template <typename S>
CONVGRAD_HD inline bool passes(Activation activation, S z) {
  return activation == Activation::kNone || (z > S{0} && (activation == Activation::kRelu || z < S{6}));
}

}  // namespace convgrad
