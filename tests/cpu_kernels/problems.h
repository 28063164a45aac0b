// The convolutions that kernels are tested with.
#pragma once

#include <string>
#include <vector>

#include "common_src/problem.h"

namespace convgrad::test {

struct NamedProblem {
  std::string name;
  ConvProblem problem;  // its dtype is set by the test
};
std::vector<NamedProblem> conv_problems();

struct Steps {
  int64_t stride = 1, pad_lo = 0, pad_hi = 0, input_dilation = 1, filter_dilation = 1;
};
// Returns an axis with as many outputs as fit.
Axis axis(int64_t input, int64_t taps, Steps = {});

}  // namespace convgrad::test
