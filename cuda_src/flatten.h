// Neighbouring axes along which a convolution only goes from position to position are one axis: a pointwise
// (1x1) convolution is one long row, and a matrix product without any arithmetic of positions.
#pragma once

#include "common_src/problem.h"

namespace convgrad::cuda {

// The same sums over the same memory, each in the same order of its terms, with such axes merged into the
// last of them, and the batch too where all axes are such. Pure function of the problem.
ConvProblem flatten(const ConvProblem&);

}  // namespace convgrad::cuda
