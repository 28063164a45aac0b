// Splits wgrad's positions and sums: a pure function of the problem and the instruction set.
#pragma once

#include <cstdint>

#include "common_src/problem.h"
#include "common_src/relation.h"
#include "cpu_src/isa.h"
#include "cpu_src/regions.h"

namespace convgrad::cpu {

// A tile of the filter's sums: channels [first_row, first_row + rows) of one tap, for the output channels of
// one panel. With joined taps there is one "tap" along axis 2, whose rows are that axis's taps and channels
// together.
struct FilterUnit {
  int64_t group, panel, tap0, tap1, tap2, first_row, rows;
};

// A block of positions: some lines along axis 2 (a line is one n, o0, o1), outputs [first, last) of each.
struct PositionBlock {
  int64_t first_line, last_line, first, last;
};

// A task is one of position_parts parts of the blocks times one of unit_parts parts of the units.
struct FilterTask {
  int64_t first_block, last_block, first_unit, last_unit;
};

class FilterPlan {
 public:
  FilterPlan(const ConvProblem& problem, Isa isa);

  // Decide how a problem is treated: whether it is swapped, and whether the problem that is then summed joins
  // taps (below).
  static bool swaps(const ConvProblem& problem);
  static bool joins_taps(const ConvProblem& summed);

  const Isa isa;
  // If inputs lie far apart, most outputs meet no input by a given tap. The transposed problem has a stride
  // instead: x and dy swap places, and so do the filter's channels; its taps are reversed.
  const bool swapped;
  const ConvProblem problem;  // as summed, pointwise axes merged
  const Tied outputs_of_tap;  // along axis 2: outputs, and the inputs to which they lead
  // With few channels, neighbouring taps are processed together, over rows of x with the padding filled in.
  const bool joined;
  const bool pairs;  // the sums are dot products of pairs of positions along axis 2 (bf16_dots.h)
  int lanes, vectors;
  int64_t panels;          // of one group
  int64_t rows;            // of one tap's sums
  int64_t tiles;           // into which the rows are split
  int64_t position_parts;  // parts whose sums are separate, and added at the end
  int64_t unit_parts;

  int64_t panel_width() const { return static_cast<int64_t>(vectors) * lanes; }
  int64_t panel_channels(int64_t panel) const;
  int panel_vectors(int64_t panel) const;
  int64_t taps2() const { return joined ? 1 : problem.axis[2].taps; }
  int64_t lines() const { return problem.batch * problem.axis[0].output * problem.axis[1].output; }
  int64_t units() const;
  FilterUnit unit(int64_t index) const;
  int64_t blocks() const;
  PositionBlock block(int64_t index) const;
  int64_t tasks() const { return position_parts * unit_parts; }
  FilterTask task(int64_t index) const;
  // Returns the first unit from `index` on whose taps are all within bounds, or units().
  int64_t next_within(int64_t index, const TapBounds (&bounds)[kAxes]) const;
  // Returns the first unit after those of the same panel and the same taps along axes 0 and 1.
  int64_t next_row(int64_t index) const { return index - index % (taps2() * tiles) + taps2() * tiles; }
};

// Returns the bytes of the partial sums, which do not depend on the instruction set.
int64_t partial_filter_bytes(const ConvProblem& problem);

}  // namespace convgrad::cpu
