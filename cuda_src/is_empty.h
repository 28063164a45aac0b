// Reports whether a convolution has an array without elements: its sums are empty, or it has no result.
#pragma once

#include "common_src/problem.h"

namespace convgrad::cuda {

inline bool is_empty(const ConvProblem& p) {
  return p.batch == 0 || p.in_channels == 0 || p.out_channels == 0 || p.inputs() == 0 || p.outputs() == 0 ||
         p.taps() == 0;
}

}  // namespace convgrad::cuda
