// Tests that flatten() keeps the flat positions that the relation ties, in the order of the taps, for every
// kind of axis.
#include "cuda_src/flatten.h"

#include <algorithm>
#include <tuple>
#include <vector>

#include "check.h"

using namespace selftest;
using namespace convgrad;

namespace {

const Axis kPointwise{5, 1, 5, 1, 0, 1, 1}, kDilated{4, 1, 4, 1, 0, 1, 3}, kOne{1, 1, 1, 1, 0, 1, 1};
const Axis kTaps{5, 3, 5, 1, 1, 1, 1}, kStrided{5, 1, 3, 2, 0, 1, 1}, kSpread{3, 1, 5, 1, 0, 2, 1};
const Axis kCropped{5, 1, 4, 1, -1, 1, 1}, kPadded{3, 1, 5, 1, 1, 1, 1}, kShifted{4, 1, 4, 1, 1, 1, 1};

// Returns (output, tap, input) of the whole batch, each flat, for each output by taps.
std::vector<std::tuple<int64_t, int64_t, int64_t>> relation(const ConvProblem& p) {
  std::vector<std::tuple<int64_t, int64_t, int64_t>> tied;
  for (int64_t at = 0; at < p.batch * p.outputs() * p.taps(); ++at) {
    int64_t rest = at, output = at / p.taps(), input = at / p.taps() / p.outputs(), r[kAxes], o[kAxes];
    for (int a = kAxes - 1; a >= 0; rest /= p.axis[a--].taps) r[a] = rest % p.axis[a].taps;
    for (int a = kAxes - 1; a >= 0; rest /= p.axis[a--].output) o[a] = rest % p.axis[a].output;
    for (int a = 0; a < kAxes && input != kNone; ++a) {
      const int64_t i = p.axis[a].input_at(o[a], r[a]);
      input = i == kNone ? kNone : input * p.axis[a].input + i;
    }
    tied.emplace_back(output, at % p.taps(), input);
  }
  return tied;
}

ConvProblem problem(int64_t batch, const Axis& a, const Axis& b, const Axis& c) {
  ConvProblem p;
  p.batch = batch;
  p.axis[0] = a, p.axis[1] = b, p.axis[2] = c;
  return p;
}

std::vector<int64_t> sizes(const ConvProblem& p) {
  return {p.batch, p.axis[0].input, p.axis[1].input, p.axis[2].input};
}

void check_sizes(const ConvProblem& p, const std::vector<int64_t>& expected, const std::string& what) {
  check(sizes(cuda::flatten(p)) == expected, what);
}

}  // namespace

TEST(flatten_keeps_the_relation) {
  const Axis kinds[] = {kPointwise, kDilated, kOne, kTaps, kStrided, kSpread, kCropped, kPadded, kShifted};
  int64_t merged = 0;
  for (const Axis& a : kinds) {
    for (const Axis& b : kinds) {
      for (const Axis& c : kinds) {
        const ConvProblem p = problem(2, a, b, c), flat = cuda::flatten(p);
        check(relation(flat) == relation(p), "the relation");
        check_equal(flat.batch * flat.inputs(), p.batch * p.inputs(), "inputs");
        merged += sizes(flat) != sizes(p);
      }
    }
  }
  // All axes with the batch; otherwise the first two or the last two, unless the first of them has one
  // position.
  check_equal(merged, 27 + 2 * 3 * 6 + 6 * 2 * 3, "problems with axes to merge");
}

TEST(flatten_merges) {
  check_sizes(problem(2, kOne, kPointwise, kDilated), {1, 1, 1, 40}, "a pointwise layer");
  check_sizes(problem(2, kOne, kTaps, kPointwise), {2, 1, 5, 5}, "taps along one axis");
  check_sizes(problem(2, kTaps, kPointwise, kPointwise), {2, 5, 1, 25}, "taps along the first axis");
  check_sizes(problem(2, kStrided, kTaps, kPointwise), {2, 5, 5, 5}, "nothing to merge");
  check_sizes(problem(0, kOne, kPointwise, kPointwise), {0, 1, 5, 5}, "an empty batch");
}

TEST(flatten_stays_small) {
  Axis long_axis = kPointwise;
  long_axis.input = long_axis.output = int64_t{1} << 20;
  check_sizes(problem(64, kOne, kOne, long_axis), {64, 1, 1, 1 << 20}, "a batch of 2^26 positions");
  check_sizes(problem(63, kOne, kOne, long_axis), {1, 1, 1, 63 << 20}, "a batch of fewer");
}
