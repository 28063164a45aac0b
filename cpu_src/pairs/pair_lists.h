// The pairs of one axis: which positions of an op's two operands meet in each position of its result, listed
// for those alone that have any.
#pragma once

#include <cstdint>
#include <vector>

#include "common_src/problem.h"
#include "cpu_src/plan.h"

namespace convgrad::cpu {

// A position of the result, and pair j of those that it sums: positions a + a_step * j and b + b_step * j,
// j in [0, count), at least one.
struct PairsOfResult {
  int64_t result, a, b, count;
};

// fprop sums pairs of inputs (a) and taps (b) for each output, dgrad of outputs (a) and taps (b) for each
// input, wgrad of inputs (a) and outputs (b) for each tap.
struct AxisPairs {
  std::vector<PairsOfResult> results;  // upwards
  int64_t a_step = 1, b_step = 1;
};

AxisPairs axis_pairs(Op, const Axis&);

// Pairs that repay the beginning of a run of them. Runs go along the innermost axis, which lies closest
// together, where a result has so many there, and else along the axis where it has the most.
inline constexpr double kLongRun = 16;

// About how many pairs there are, counted in three ways, since any two of o, r and i give the third or none.
// It is too many where most lie on the padding, and may be too few on axes of a few positions.
double most_pairs(const Axis&);

}  // namespace convgrad::cpu
