// How wgrad's positions and sums are split: a pure function of the problem and the instruction set.
#pragma once

#include <cstdint>

#include "common_src/problem.h"
#include "common_src/relation.h"
#include "cpu_src/isa.h"
#include "cpu_src/regions.h"

namespace convgrad::cpu {

// A tile of the filter's sums: channels [first_row, first_row + rows) of one tap, `vectors` vectors of output
// channels from first_channel on. With joined taps a "tap" has one number along axis 2, and its rows are that
// axis' taps and channels together.
struct FilterUnit {
  int64_t group, panel, tap0, tap1, tap2, first_row, rows;
};

// Positions come in blocks, `lines` of rows along axis 2 (a line is one n, o0, o1), outputs [first, last) of
// each.
struct PositionBlock {
  int64_t first_line, last_line, first, last;
};

// Parts [0, position_parts) of the blocks times parts [0, unit_parts) of the units are the tasks.
struct FilterTask {
  int64_t first_block, last_block, first_unit, last_unit;
};

class FilterPlan {
 public:
  FilterPlan(const ConvProblem& problem, Isa isa);

  // What becomes of a problem: whether it is swapped, and whether what is summed then joins taps (below).
  static bool swaps(const ConvProblem& problem);
  static bool joins_taps(const ConvProblem& summed);

  const Isa isa;
  // Where the inputs lie far apart, most outputs meet none of them by a given tap. The transposed problem has
  // a stride instead: x and dy change places, and so do the filter's channels; its taps go backwards.
  const bool swapped;
  const ConvProblem problem;  // as it is summed, trivial axes merged
  const Tied outputs_of_tap;  // along axis 2: outputs, and the inputs that they lead to
  // Few channels: neighbouring taps are taken together, over rows of x with the padding filled in.
  const bool joined;
  int lanes, vectors;
  int64_t panels;          // of one group
  int64_t rows;            // of one tap's sums
  int64_t tiles;           // that these are split into
  int64_t position_parts;  // sums of which are kept apart, and added in the end
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
  // The first unit from `index` on whose taps are all within bounds, or units().
  int64_t next_within(int64_t index, const TapBounds (&bounds)[kAxes]) const;
  // The first unit behind those of the same taps along axes 0 and 1, and of the same panel.
  int64_t next_row(int64_t index) const { return index - index % (taps2() * tiles) + taps2() * tiles; }
};

// Bytes of the partial sums; does not depend on the instruction set.
int64_t partial_filter_bytes(const ConvProblem& problem);

}  // namespace convgrad::cpu
