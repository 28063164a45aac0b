// Compares phases (common_src/phase.h), and what other kernels solve of the relation, with a search over
// random axes.
#include <algorithm>
#include <random>
#include <tuple>
#include <vector>

#include "check.h"
#include "common_src/phase.h"
#include "common_src/window.h"
#include "cuda_src/grouped/grouped.cuh"
#include "cuda_src/pool/runs.cuh"

using namespace selftest;
using namespace convgrad;
using namespace convgrad::cuda;

namespace {

using Triples = std::vector<std::tuple<int64_t, int64_t, int64_t>>;  // o, r, i

std::mt19937 generator(1);

int64_t draw(int64_t least, int64_t most) {
  return std::uniform_int_distribution<int64_t>(least, most)(generator);
}

Axis random_axis() {
  Axis axis;
  axis.input = draw(1, 30);
  axis.taps = draw(1, 20);
  axis.output = draw(1, 40);
  axis.stride = draw(1, 12);
  axis.pad_lo = draw(-30, 60);
  axis.input_dilation = draw(1, 12);
  axis.filter_dilation = draw(1, 12);
  return axis;
}

Triples searched(const Axis& axis) {
  Triples tied;
  for (int64_t o = 0; o < axis.output; ++o)
    for (int64_t r = 0; r < axis.taps; ++r)
      if (axis.input_at(o, r) != kNone) tied.emplace_back(o, r, axis.input_at(o, r));
  return tied;
}

// Adds those triples of a phase that are on the input.
void add_triples(const Axis& axis, const PhaseAxis& phase, Triples& tied) {
  for (int64_t o = 0; o < phase.outputs; ++o)
    for (int64_t r = 0; r < phase.taps; ++r) {
      const int64_t i = phase.start(o) + r * phase.tap_step;
      if (i >= 0 && i < axis.input)
        tied.emplace_back(phase.o_first + o * phase.o_step, phase.r_first + r * phase.r_step, i);
    }
}

void check_phases(const Axis& axis, ResultIs result) {
  const AxisPhases phases(axis, result);
  check(phases.count() <= std::min(axis.output, axis.taps), "no more phases than outputs, or taps");
  Triples tied;
  std::vector<int> results(result == ResultIs::kOutputs ? axis.output : axis.taps);
  for (int64_t f = 0; f < phases.count(); ++f) {
    const PhaseAxis phase = phases[f];
    add_triples(axis, phase, tied);
    check(phase.outputs <= phases.most_outputs() && phase.taps <= phases.most_taps(), "the largest phase");
    const bool outputs = result == ResultIs::kOutputs;
    for (int64_t j = 0; j < (outputs ? phase.outputs : phase.taps); ++j)
      ++results[outputs ? phase.o_first + j * phase.o_step : phase.r_first + j * phase.r_step];
  }
  std::sort(tied.begin(), tied.end());
  check(tied == searched(axis), "the triples of all phases");
  check(*std::max_element(results.begin(), results.end()) <= 1, "a result in two phases");
  if (phases.covers()) check(*std::min_element(results.begin(), results.end()) == 1, "a result in none");
  for (const bool whole : {true, false}) {  // what is dropped has no triples, and no more can be dropped
    Triples kept;
    for (int64_t f = 0; f < phases.count(); ++f) {
      PhaseAxis phase = phases[f];
      if (whole)
        phase.keep_taps_of(axis.input, 0, phase.outputs);
      else
        phase.keep_outputs_of(axis.input, 0, phase.taps);
      Triples of_phase;
      add_triples(axis, phase, of_phase);
      kept.insert(kept.end(), of_phase.begin(), of_phase.end());
      const int64_t left = whole ? phase.taps : phase.outputs;
      const auto has = [&](int64_t at) {
        const int64_t number = whole ? phase.r_first + at * phase.r_step : phase.o_first + at * phase.o_step;
        return std::any_of(of_phase.begin(), of_phase.end(), [&](const auto& triple) {
          return (whole ? std::get<1>(triple) : std::get<0>(triple)) == number;
        });
      };
      // A window may step over the whole input; otherwise the ends of what is left are met.
      if (left > 0 && (whole ? phase.output_step : phase.tap_step) == 1) {
        check(has(0), "the first that is left");
        check(has(left - 1), "the last that is left");
      }
    }
    std::sort(kept.begin(), kept.end());
    check(kept == searched(axis), "the triples that are left");
  }
}

GroupedAxis grouped_axis(const Axis& axis) {
  ConvProblem p;
  p.axis[2] = axis;
  p.axis[1].input = 2;  // otherwise the plan swaps the axes
  return grouped_problem(p).axis[2];
}

void check_grouped(const Axis& axis) {
  const GroupedAxis grouped = grouped_axis(axis);
  for (int o = 0; o < axis.output; ++o) {
    std::vector<int64_t> expected, found;
    for (int64_t r = 0; r < axis.taps; ++r)
      if (axis.input_at(o, r) != kNone) expected.push_back(r);
    const FirstTap first = skip_padding(grouped, first_tap(grouped, o), 0);
    for (int r = first.r, i = first.source; r < grouped.taps && i < grouped.input;
         r += grouped.tap_step, i += grouped.tap_source_step) {
      check_equal(axis.input_at(o, r), i, "a source");
      found.push_back(r);
    }
    check(found == expected, "the taps of a grouped result");
  }
}

void check_stretches(const Axis& axis) {
  for (int64_t o = 0; o < axis.output; ++o) {
    std::vector<int64_t> expected, found;
    for (int64_t r = 0; r < axis.taps; ++r) {
      const int64_t i = axis.input_at(o, r);
      if (i != kNone || expected.empty() || expected.back() != kNone) expected.push_back(i);
    }
    const Axis axes[] = {Axis{}, Axis{}, axis};
    for_each_stretch(axes, {0, 0, o}, [&](int64_t i) { found.push_back(i); });
    check(found == expected, "a window's stretches");
  }
}

void check_runs(Axis axis) {
  axis.input_dilation = 1;  // pooling has no input dilation
  const TiedOutputs tied(axis);
  for (int i = 0; i < axis.input; ++i) {
    std::vector<int64_t> expected, found;
    for (int64_t r = 0; r < axis.taps; ++r)
      if (axis.output_at(i, r) != kNone) expected.push_back(axis.output_at(i, r));
    const Run run = tied(i);
    for (int j = 0; j < run.count; ++j) found.push_back(run.first + j * tied.step());
    check(found == expected, "an input's outputs");
  }
}

}  // namespace

TEST(phases_are_the_relation) {
  for (int n = 0; n < 3000; ++n) {
    Axis axis = random_axis();
    if (n % 3 == 0) axis.stride = axis.filter_dilation = 1;  // a transposed layer
    if (n % 7 == 0) axis.input_dilation = 1;
    check_phases(axis, ResultIs::kOutputs);
    check_phases(axis, ResultIs::kTaps);
    check_grouped(axis);
    check_stretches(axis);
    check_runs(axis);
  }
}

// A search over such steps would not end.
TEST(phases_of_large_steps) {
  const int64_t step = (int64_t{1} << 30) - 1;
  const Axis axis{3, 2, step, step - 1, 5, step, step - 2};
  check(AxisPhases(axis, ResultIs::kOutputs).count() <= 2, "as few phases as taps");
  check(AxisPhases(axis, ResultIs::kTaps).count() <= 2, "as few phases as taps");
  Axis one_tap{1000, 1, 1000 * 16000, 1, 0, 16000, 1};
  check_equal(AxisPhases(one_tap, ResultIs::kOutputs).count(), 1, "phases of one tap");
  check(!AxisPhases(one_tap, ResultIs::kOutputs).covers(), "the outputs that no tap is tied to");
  check_equal(phase_of(one_tap, 15999).taps, 0, "the last phase has none");
}

// Positions past 2^31 in the relation's own units: a stride of 16000 and taps 4096 apart.
TEST(phases_past_32_bits) {
  Axis axis{int64_t{1} << 30, 3, 0, 16000, 4096, 1, 4096};
  axis.output = (axis.input - 1) / axis.stride;
  Axis transposed = axis.transpose();
  transposed.input_dilation = 16000;
  const AxisPhases phases(transposed, ResultIs::kOutputs);
  for (int64_t f = 0; f < phases.count(); ++f) {
    const PhaseAxis phase = phases[f];
    if (phase.outputs == 0 || phase.taps == 0) continue;
    const int64_t o = phase.outputs - 1, r = phase.taps - 1, i = phase.start(o) + r * phase.tap_step;
    const int64_t expected =
        transposed.input_at(phase.o_first + o * phase.o_step, phase.r_first + r * phase.r_step);
    check(expected == (i >= 0 && i < transposed.input ? i : kNone), "the last of a phase");
  }
}
