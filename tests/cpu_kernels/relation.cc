// Compares the solved relation (common_src/relation.h), and the plans' use of it, with a search over random
// axes.
#include "common_src/relation.h"

#include <random>
#include <vector>

#include "common_src/window.h"
#include "cpu_src/met_taps.h"
#include "cpu_src/plan.h"
#include "cpu_src/regions.h"
#include "cpu_src/tiled/activation_plan.h"
#include "cpu_src/tiled/filter_plan.h"
#include "tests/cpu_kernels/checks.h"

namespace convgrad::test {
namespace {

using Generator = std::mt19937;
using Pairs = std::vector<std::pair<int64_t, int64_t>>;

int64_t draw(Generator& random, int64_t least, int64_t most) {
  return std::uniform_int_distribution<int64_t>(least, most)(random);
}

Axis random_axis(Generator& random) {
  Axis axis;
  axis.input = draw(random, 1, 30);
  axis.taps = draw(random, 1, 20);
  axis.output = draw(random, 1, 40);
  axis.stride = draw(random, 1, 12);
  axis.pad_lo = draw(random, -30, 60);
  axis.input_dilation = draw(random, 1, 12);
  axis.filter_dilation = draw(random, 1, 12);
  return axis;
}

Pairs pairs_of(const Progression& tied) {
  Pairs pairs;
  for (int64_t j = 0; j < tied.count; ++j) pairs.emplace_back(tied.at(j), tied.partner_at(j));
  return pairs;
}

void check_pairs(Report& report, const Axis& axis) {
  report.tried("relation");
  for (int64_t o = 0; o < axis.output; ++o) {
    Pairs found;
    for (int64_t r = 0; r < axis.taps; ++r)
      if (axis.input_at(o, r) != kNone) found.emplace_back(r, axis.input_at(o, r));
    if (found != pairs_of(taps_of_output(axis).from(axis.pad_lo - o * axis.stride)))
      report.fail("relation", "other taps of an output");
  }
  for (int64_t i = 0; i < axis.input; ++i) {
    Pairs found;
    for (int64_t r = 0; r < axis.taps; ++r)
      if (axis.output_at(i, r) != kNone) found.emplace_back(r, axis.output_at(i, r));
    if (found != pairs_of(taps_of_input(axis, i))) report.fail("relation", "other taps of an input");
  }
  const cpu::TapBounds bounds = cpu::tap_bounds(axis, 0, axis.output);
  for (int64_t r = 0; r < axis.taps; ++r) {
    Pairs found;
    for (int64_t o = 0; o < axis.output; ++o)
      if (axis.input_at(o, r) != kNone) found.emplace_back(o, axis.input_at(o, r));
    if (found != pairs_of(outputs_of_tap(axis).from(axis.pad_lo - r * axis.filter_dilation)))
      report.fail("relation", "other outputs of a tap");
    if (!found.empty() && !bounds.hold(r)) report.fail("relation", "a tied tap out of bounds");
  }
}

// Checks a window's inputs in the order of its taps, with one kNone for the padding between two of them.
void check_stretches(Report& report, const Axis& axis) {
  report.tried("stretches");
  PoolProblem pool;
  pool.axis[2] = axis;
  for (int64_t o = 0; o < axis.output; ++o) {
    std::vector<int64_t> expected, found;
    for (int64_t r = 0; r < axis.taps; ++r) {
      const int64_t i = axis.input_at(o, r);
      if (i != kNone || expected.empty() || expected.back() != kNone) expected.push_back(i);
    }
    for_each_stretch(pool.axis, {0, 0, o}, [&](int64_t i) { found.push_back(i); });
    if (found != expected) report.fail("stretches", "other stretches of a window");
  }
}

// Returns (result, tap, source) of regions, result by result; each result must be in at most one region.
std::vector<Pairs> pairs_of(Report& report, const Axis& axis, const std::vector<cpu::Region>& regions,
                            const std::vector<int64_t>& classes, int64_t class_step) {
  std::vector<Pairs> pairs(axis.output);
  std::vector<int> seen(axis.output);
  const std::vector<int64_t> packed = cpu::packed_taps(axis);
  for (const cpu::Region& region : regions) {
    for (int64_t j = 0; j < region.count; ++j) {
      for (int64_t phase = 0; phase < region.phases; ++phase) {
        const int64_t result = region.result_first + region.result_step * j + phase;
        if (result >= axis.output || seen[result]++) return report.fail("regions", "a result twice"), pairs;
        for (int64_t t = region.tap_first; t < region.tap_first + region.taps; ++t) {
          const int64_t tap =
              classes.empty() ? packed[t] : classes[region.first_class + phase] + class_step * t;
          pairs[result].emplace_back(tap, region.source_first + region.source_step * j +
                                              region.tap_source_step * (t - region.tap_first));
        }
      }
    }
  }
  return pairs;
}

void check_regions(Report& report, const Axis& axis) {
  report.tried("regions");
  std::vector<Pairs> searched(axis.output);
  for (int64_t o = 0; o < axis.output; ++o) {
    for (int64_t r = 0; r < axis.taps; ++r)
      if (axis.input_at(o, r) != kNone) searched[o].emplace_back(r, axis.input_at(o, r));
  }
  if (pairs_of(report, axis, cpu::regions(axis), {}, 0) != searched) report.fail("regions", "other pairs");
  const cpu::ResultPhases phases(axis);
  std::vector<cpu::Region> merged;
  for (const cpu::Region& run : phases.tied()) cpu::add_regions(axis, run, merged);
  if (pairs_of(report, axis, merged, phases.first_taps(), phases.class_step()) != searched)
    report.fail("regions", "other pairs of merged phases");
}

ConvProblem random_problem(Generator& random) {
  ConvProblem problem;
  problem.batch = draw(random, 1, 3);
  problem.in_channels = draw(random, 1, 20);
  problem.out_channels = draw(random, 1, 20);
  for (Axis& axis : problem.axis)
    if (draw(random, 0, 2) > 0) axis = random_axis(random);
  return problem;
}

// The filter that remains needs no more workspace than was asked for the whole filter.
void check_workspace(Report& report, const ConvProblem& problem) {
  report.tried("workspace of met taps");
  const cpu::Request request{cpu::Kernel::kAuto, cpu::supported_isas().front()};
  const ConvProblem met = cpu::met_taps(problem).problem;
  for (const Op op : {Op::kFprop, Op::kDgrad}) {
    const cpu::Kernel kernel = cpu::plan(op, problem, request).kernel;
    if (kernel == cpu::Kernel::kReference) continue;
    if (cpu::conv_workspace_bytes(op, met, {kernel, request.isa}) >
        cpu::conv_workspace_bytes(op, problem, request))
      report.fail("workspace of met taps", "it is too small");
  }
}

// Steps of 2^30: a search over them would not end.
void check_large_steps(Report& report) {
  report.tried("large steps");
  const int64_t step = (int64_t{1} << 30) - 1;
  const Axis axis{3, 2, step, step - 1, 5, step, step - 2};
  const Congruence solved(axis.stride, axis.input_dilation);
  const int64_t x = solved.first(12345);
  if (x < 0 || x >= step || remainder_of(x % step * axis.stride, step) != 12345)
    report.fail("large steps", "the congruence is not solved");
  if (cpu::ResultPhases(axis).tied().size() > 2) report.fail("large steps", "more phases than taps");
}

}  // namespace

void check_relation(Report& report, const std::string& filter) {
  if (std::string("relation").find(filter) == std::string::npos) return;
  Generator random(1);
  for (int n = 0; n < 3000; ++n) {
    Axis axis = random_axis(random);
    if (n % 3 == 0)
      axis.stride = axis.filter_dilation = 1;  // a transposed layer, whose phases are neighbours
    check_pairs(report, axis);
    check_stretches(report, axis);
    check_regions(report, axis);
    check_workspace(report, random_problem(random));
  }
  check_large_steps(report);
}

}  // namespace convgrad::test
