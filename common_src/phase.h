// Splits a problem with dilated inputs into phases without the zeros between them. An output o and a tap r
// are tied to an input only if
//
//     o * stride + r * filter_dilation - pad_lo  =  0   (mod input_dilation)
//
// So the outputs o = o_first + o_step * o' of one residue see the taps r = r_first + r_step * r', and among
// these the relation is a plain one again, i = start(o') + r' * tap_step. Such a pair of outputs and taps is
// a phase. A strided dgrad, as fprop of the transposed problem, has up to `stride` phases per axis; a problem
// without input dilation has one phase.
//
// With large steps most residues have no tap or no output. Phases are numbered by outputs or by taps,
// whichever belong to fewer phases, and the other side is solved for, so there are no more phases than
// outputs or taps.
#pragma once

#include <cstdint>

#include "common_src/integers.h"
#include "common_src/problem.h"
#include "common_src/relation.h"

namespace convgrad {

// The numbers [first, first + count).
struct Stretch {
  int64_t first, count;
};

// Returns the numbers j below `count` for which start + j * step may lie in [0, input), for a start in
// [least, most].
CONVGRAD_HD inline Stretch on_input(int64_t least, int64_t most, int64_t step, int64_t input, int64_t count) {
  const int64_t first = most < 0 ? steps_over(-most, step) : 0;
  const int64_t end = least < input ? steps_over(input - least, step) : 0;
  const int64_t last = end < count ? end : count;
  return last > first ? Stretch{first, last - first} : Stretch{0, 0};
}

struct PhaseAxis {
  int64_t outputs, taps;  // of this phase; 0 if nothing is tied
  int64_t o_first, o_step;
  int64_t r_first, r_step;
  int64_t first_start, output_step, tap_step;

  // Returns the input tied to o' and tap r' = 0. It may lie on the padding.
  CONVGRAD_HD int64_t start(int64_t o) const { return first_start + o * output_step; }

  // Drops the taps that tie none of the outputs o' in [begin, end) to an input.
  CONVGRAD_HD void keep_taps_of(int64_t input, int64_t begin, int64_t end) {
    const Stretch kept =
        begin < end ? on_input(start(begin), start(end - 1), tap_step, input, taps) : Stretch{0, 0};
    r_first += kept.first * r_step;
    first_start += kept.first * tap_step;
    taps = kept.count;
  }
  // Drops the outputs that none of the taps r' in [begin, end) ties to an input.
  CONVGRAD_HD void keep_outputs_of(int64_t input, int64_t begin, int64_t end) {
    const Stretch kept = begin < end
                             ? on_input(first_start + begin * tap_step, first_start + (end - 1) * tap_step,
                                        output_step, input, outputs)
                             : Stretch{0, 0};
    o_first += kept.first * o_step;
    first_start += kept.first * output_step;
    outputs = kept.count;
  }
};

// The steps from one position of a phase to the next, computed once per axis; of_output() then solves for one
// phase.
class PhaseSteps {
 public:
  CONVGRAD_HD explicit PhaseSteps(const Axis& axis)
      : axis_(axis),
        solve_tap_(axis.filter_dilation, axis.input_dilation),
        solve_output_(axis.stride, axis.input_dilation) {}

  CONVGRAD_HD int64_t o_step() const { return solve_output_.step; }
  CONVGRAD_HD int64_t r_step() const { return solve_tap_.step; }
  // Return how far one o_step and one r_step move the input.
  CONVGRAD_HD int64_t output_step() const { return axis_.stride / solve_output_.common; }
  CONVGRAD_HD int64_t tap_step() const { return axis_.filter_dilation / solve_tap_.common; }
  // Return the number of outputs, and of taps, of the largest phase.
  CONVGRAD_HD int64_t most_outputs() const { return steps_over(axis_.output, o_step()); }
  CONVGRAD_HD int64_t most_taps() const { return steps_over(axis_.taps, r_step()); }

  // Returns the phase whose first output is o, whether or not a tap is tied to it.
  CONVGRAD_HD PhaseAxis of_output(int64_t o) const { return of(o, first_tap(o)); }

 protected:
  // Return the first tap that output o meets, and the first output that tap r meets, or kNone. Either may lie
  // past the end.
  CONVGRAD_HD int64_t first_tap(int64_t o) const { return solve_tap_.first(axis_.pad_lo - o * axis_.stride); }
  CONVGRAD_HD int64_t first_output(int64_t r) const {
    return solve_output_.first(axis_.pad_lo - r * axis_.filter_dilation);
  }

  // Returns the phase that begins with output o and tap r, which are tied to each other.
  CONVGRAD_HD PhaseAxis of(int64_t o, int64_t r) const {
    const bool has_outputs = o != kNone && o < axis_.output, has_taps = r != kNone && r < axis_.taps;
    PhaseAxis p;
    p.o_first = o == kNone ? 0 : o;
    p.r_first = r == kNone ? 0 : r;
    p.o_step = o_step();
    p.r_step = r_step();
    p.outputs = has_outputs ? steps_over(axis_.output - o, p.o_step) : 0;
    p.taps = has_taps ? steps_over(axis_.taps - r, p.r_step) : 0;
    p.output_step = output_step();
    p.tap_step = tap_step();
    p.first_start = has_outputs && has_taps
                        ? (o * axis_.stride + r * axis_.filter_dilation - axis_.pad_lo) / axis_.input_dilation
                        : 0;
    return p;
  }

  Axis axis_;
  Congruence solve_tap_, solve_output_;
};

// The side of the relation that is the result, of which phases must leave out nothing.
enum class ResultIs { kOutputs, kTaps };

// The numbered phases of an axis that have both outputs and taps; [] solves for one of them.
class AxisPhases : public PhaseSteps {
 public:
  CONVGRAD_HD AxisPhases(const Axis& axis, ResultIs result) : PhaseSteps(axis) {
    // The outputs tied to any tap, and the taps tied to any output, are arithmetic progressions.
    const Stretch outputs =
        solvable(axis.stride, solve_tap_.common, fewer(o_step(), axis.output), o_between_);
    const Stretch taps =
        solvable(axis.filter_dilation, solve_output_.common, fewer(r_step(), axis.taps), r_between_);
    by_taps_ = result == ResultIs::kTaps ? taps.count <= outputs.count : taps.count < outputs.count;
    first_ = by_taps_ ? taps.first : outputs.first;
    count_ = by_taps_ ? taps.count : outputs.count;
    const int64_t all = result == ResultIs::kTaps ? fewer(r_step(), axis.taps) : fewer(o_step(), axis.output);
    covers_ = by_taps_ == (result == ResultIs::kTaps) && count_ == all;
  }

  CONVGRAD_HD int64_t count() const { return count_; }
  // Reports whether every result is in one of the phases.
  CONVGRAD_HD bool covers() const { return covers_; }

  CONVGRAD_HD PhaseAxis operator[](int64_t phase) const {
    if (axis_.input_dilation == 1)
      return {axis_.output, axis_.taps, 0, 1, 0, 1, -axis_.pad_lo, axis_.stride, axis_.filter_dilation};
    if (by_taps_) {
      const int64_t r = first_ + phase * r_between_;
      return of(first_output(r), r);
    }
    return of_output(first_ + phase * o_between_);
  }

 private:
  CONVGRAD_HD static int64_t fewer(int64_t a, int64_t b) { return a < b ? a : b; }

  // Returns the x in [0, count) with x * factor = pad_lo (mod common), which are `between` apart.
  CONVGRAD_HD Stretch solvable(int64_t factor, int64_t common, int64_t count, int64_t& between) const {
    const Congruence solve(factor, common);
    between = solve.step;
    const int64_t first = solve.first(axis_.pad_lo);
    if (first == kNone || first >= count) return {0, 0};
    return {first, steps_over(count - first, between)};
  }

  int64_t first_, count_, o_between_, r_between_;
  bool by_taps_, covers_;
};

// The phases of all axes. A phase of the problem is one phase of each axis.
struct Phases {
  AxisPhases axis[kAxes];

  CONVGRAD_HD Phases(const ConvProblem& p, ResultIs result)
      : axis{AxisPhases(p.axis[0], result), AxisPhases(p.axis[1], result), AxisPhases(p.axis[2], result)} {}

  CONVGRAD_HD int64_t count() const { return axis[0].count() * axis[1].count() * axis[2].count(); }
  CONVGRAD_HD bool covers() const { return axis[0].covers() && axis[1].covers() && axis[2].covers(); }
  CONVGRAD_HD int64_t most_outputs() const {
    return axis[0].most_outputs() * axis[1].most_outputs() * axis[2].most_outputs();
  }
  CONVGRAD_HD int64_t most_taps() const {
    return axis[0].most_taps() * axis[1].most_taps() * axis[2].most_taps();
  }
};

// Returns the number of phases of an axis that have an output, with or without taps.
CONVGRAD_HD inline int64_t phases_of(const Axis& axis) {
  const int64_t residues = axis.input_dilation / greatest_common_divisor(axis.stride, axis.input_dilation);
  return residues < axis.output ? residues : (axis.output > 0 ? axis.output : 1);
}

// Returns one of these phases, with all of its taps.
CONVGRAD_HD inline PhaseAxis phase_of(const Axis& axis, int64_t phase) {
  return PhaseSteps(axis).of_output(phase);
}

// Returns the same with only the taps that tie any of its outputs to an input.
CONVGRAD_HD inline PhaseAxis met_phase_of(const Axis& axis, int64_t phase) {
  PhaseAxis met = phase_of(axis, phase);
  met.keep_taps_of(axis.input, 0, met.outputs);
  return met;
}

// Report whether a tap has most of the outputs on padding, or an output most of the taps. Then it pays to
// search for those that are not on padding.
CONVGRAD_HD inline bool pads_most_outputs(const Axis& axis) {
  return (axis.input - 1) * axis.input_dilation / axis.stride + 1 <= axis.output / 2;
}
CONVGRAD_HD inline bool pads_most_taps(const Axis& axis) {
  return (axis.input - 1) * axis.input_dilation / axis.filter_dilation + 1 <= axis.taps / 2;
}
CONVGRAD_HD inline bool is_mostly_padding(const Axis& axis) {
  return pads_most_outputs(axis) || pads_most_taps(axis);
}
CONVGRAD_HD inline bool is_mostly_padding(const ConvProblem& p) {
  return is_mostly_padding(p.axis[0]) || is_mostly_padding(p.axis[1]) || is_mostly_padding(p.axis[2]);
}

}  // namespace convgrad
