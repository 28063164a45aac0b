// Counts the steps of plans instead of timing them: layers with the same products and results at ever larger
// steps must cost the same.
#include <algorithm>

#include "common_src/major.h"
#include "common_src/window.h"
#include "cpu_src/grouped/plan.h"
#include "cpu_src/tiled/activation_plan.h"
#include "cpu_src/tiled/filter_plan.h"
#include "cpu_src/tiled/packed_filter.h"
#include "tests/cpu_kernels/checks.h"
#include "tests/cpu_kernels/problems.h"

namespace convgrad::test {
namespace {

using cpu::Isa;
using cpu::LanesAre;

constexpr int64_t kLength = 1 << 16;

// Returns patches of one channel: kernel and stride are equal.
ConvProblem patches(int64_t stride) {
  ConvProblem problem;
  problem.out_channels = 8;
  problem.axis[2] = axis(kLength, stride, {stride});
  return problem;
}

// Counts boxes, the terms that are listed for them, and packing tasks.
int64_t activation_steps(const ConvProblem& problem, Major filter_major, LanesAre lanes_are) {
  const cpu::ActivationPlan plan(problem, filter_major, lanes_are, Isa::kPlain);
  const int64_t packing = plan.packed ? cpu::packing_tasks(plan) : 0;
  return plan.boxes() + packing + plan.tasks();
}

// Counts the units that are visited for every block.
int64_t filter_steps(const ConvProblem& problem) {
  const cpu::FilterPlan plan(problem, Isa::kPlain);
  int64_t steps = 0;
  for (int64_t block = 0; block < plan.blocks(); ++block) {
    const cpu::PositionBlock at = plan.block(block);
    const Axis* axis = plan.problem.axis;
    const cpu::TapBounds bounds[kAxes] = {
        cpu::tap_bounds(axis[0], 0, axis[0].output), cpu::tap_bounds(axis[1], 0, axis[1].output),
        plan.joined ? cpu::TapBounds{0, 1} : cpu::tap_bounds(axis[2], at.first, at.last)};
    for (int64_t unit = plan.next_within(0, bounds); unit < plan.units();
         unit = plan.next_within(unit + 1, bounds))
      ++steps;
  }
  return steps;
}

// A step 256 times larger may not cost more, and neither may cost more than `most`.
template <typename Count>
void expect_flat(Report& report, const std::string& what, int64_t most, const Count& count) {
  report.tried("plan costs");
  const int64_t small = count(64), large = count(1 << 14);
  if (large > small + most)
    report.fail(what, std::to_string(small) + " steps at stride 64, " + std::to_string(large) + " at 16384");
}

}  // namespace

void check_plan_costs(Report& report, const std::string& filter) {
  if (std::string("plan costs").find(filter) == std::string::npos) return;
  // A box serves at least the channels of a panel, which are those of neighbouring phases.
  expect_flat(report, "dgrad of patches", (1 << 14) / 4, [](int64_t s) {
    return activation_steps(patches(s).transpose(), Major::kK, LanesAre::kResults);
  });
  expect_flat(report, "fprop of patches", 1 << 14,
              [](int64_t s) { return activation_steps(patches(s), Major::kMN, LanesAre::kResults); });
  // One tap and a large stride: all other phases are written at once.
  expect_flat(report, "dgrad of one tap", 64, [](int64_t s) {
    ConvProblem problem = patches(s);
    problem.axis[2] = axis(kLength, 1, {s});
    return activation_steps(problem.transpose(), Major::kK, LanesAre::kResults);
  });
  // As many taps, frames and channels: a transposed layer's filter gradient.
  expect_flat(report, "wgrad of a transposed layer", 64, [](int64_t s) {
    ConvProblem problem;
    problem.in_channels = 64;
    problem.axis[2] = axis(20, 4, {1, 0, 0, s});
    return filter_steps(problem);
  });
  // Taps far apart: a block of outputs meets only the taps near it, so each tap is visited once per block of
  // inputs.
  expect_flat(report, "wgrad of a dilated layer on padding", 256, [](int64_t s) {
    ConvProblem problem;
    problem.in_channels = 16;
    problem.axis[2] = axis(256, 64, {1, 64 * s, 0, 1, s});
    return filter_steps(problem);
  });
  expect_flat(report, "a window that is mostly on padding", 0, [](int64_t s) {
    PoolProblem pool;
    pool.axis[2] = axis(16, s, {1, s - 1});
    int64_t steps = 0;
    for_each_stretch(pool.axis, {0, 0, 8}, [&](int64_t) { ++steps; });
    return steps;
  });
  expect_flat(report, "phases of a strip", 512, [](int64_t s) {
    ConvProblem problem;
    problem.in_channels = problem.out_channels = problem.groups = 8;
    problem.axis[2] = axis(kLength, 4, {s});
    const cpu::GroupedPlan plan(problem.transpose(), Major::kK, Isa::kPlain);
    return static_cast<int64_t>(plan.phases_of(plan.strip(0)).size());
  });
}

}  // namespace convgrad::test
