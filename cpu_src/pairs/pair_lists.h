// The pairs of one axis: which positions of an op's two operands meet in each position of its result. Only
// results with a pair are listed.
#pragma once

#include <cstdint>
#include <vector>

#include "common_src/problem.h"
#include "cpu_src/plan.h"

namespace convgrad::cpu {

// A position of the result, and the pairs that it sums: pair j is the positions a + a_step * j and b + b_step
// * j, j in [0, count), with at least one.
struct PairsOfResult {
  int64_t result, a, b, count;
};

// fprop sums pairs of inputs (a) and taps (b) for each output, dgrad of outputs (a) and taps (b) for each
// input, wgrad of inputs (a) and outputs (b) for each tap.
struct AxisPairs {
  std::vector<PairsOfResult> results;  // ascending
  int64_t a_step = 1, b_step = 1;
};

AxisPairs axis_pairs(Op, const Axis&);

// The number of pairs that repays the start of a run. Runs go along the innermost axis, where pairs are
// closest in memory, if a result has so many there, otherwise along the axis where it has the most.
inline constexpr double kLongRun = 16;

// Estimates the number of pairs in three ways, because any two of o, r and i determine the third, or exclude
// it. The estimate is too large if most pairs lie on the padding, and may be too small on axes of a few
// positions.
double most_pairs(const Axis&);

}  // namespace convgrad::cpu
