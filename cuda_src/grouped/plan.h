// How the grouped kernels lay a problem over blocks and threads, in 32 bits, and which problems they serve:
// pure functions of the problem.
//
// Results lie along a row, the last axis, in runs of a few that one thread has in its registers. Where inputs
// are dilated (in dgrad: where there is a stride), results o and o + phases meet the same taps, and a run is
// one of a single phase.
#pragma once

#include <cstdint>

#include "common_src/problem.h"

namespace convgrad::cuda {

inline constexpr int kGroupedThreads = 256;
inline constexpr int kGroupedRun = 8;  // positions that a thread has at a time, or fewer of wide lanes

// An axis, and its relation read from the result's side. A tap r that is tied to result o is followed by
// r + tap_step, whose source lies tap_source_step further.
struct GroupedAxis {
  int input, taps, output, stride, pad_lo, input_dilation, filter_dilation;
  int phases;       // results o and o + phases meet the same taps,
  int source_step;  // at sources this far apart
  int tap_step, tap_source_step;
  int tap_common, tap_inverse;  // for the first tap: of filter_dilation, with and modulo input_dilation
};

// Neighbouring channels that a thread has side by side, and what a group is among them.
struct GroupedLanes {
  int lanes;
  int group;  // 1: each lane is a group; as many as lanes: all are one; 0: one lane, in groups of any size
};

struct GroupedProblem {
  GroupedAxis axis[kAxes];
  int in_channels, out_channels, group_in, group_out;
  int rows;   // (n,o0,o1)
  int shift;  // the windowed kernel's first run begins at result -shift
  unsigned runs;
  unsigned panels;  // of the channels that a block has
  unsigned run_blocks;
};

// The threads of a block along channels, runs (or pieces of the filter) and rows (or slots of a sum).
struct GroupedBlock {
  int x, y, z;
  int64_t blocks;
};

// Several groups of at most 16 channels on either side, and numbers of positions, taps and channels, each by
// itself, that leave room in 32 bits; elements are counted in 64.
bool grouped_serves(const ConvProblem&);
inline constexpr const char* kGroupedServes =
    "several groups of at most 16 channels, in and out, fewer than 2^29 positions and 2^25 taps";

GroupedLanes grouped_lanes(const ConvProblem&);
GroupedProblem grouped_problem(const ConvProblem&);

// Whether the last axis is one that the windowed kernels are compiled for: `taps` neighbours.
bool is_windowed(const GroupedProblem&, int taps, int stride, int input_dilation);

// Sets runs, shift and panels, for results in runs of `run`.
GroupedBlock grouped_activation_block(GroupedProblem&, GroupedLanes, DType, int run, bool windowed);

// A filter's gradient in `parts` of the units, each a run of a row, or where there are phases of the taps
// (common_src/phase.h) a position of one. A thread has one piece of the filter.
struct GroupedFilterSplit {
  unsigned parts;
  unsigned units, units_per_part;
  unsigned pieces, piece_blocks;
};
GroupedFilterSplit grouped_filter_split(const ConvProblem&);  // its pieces are 0

// Sets runs and panels, and the split's pieces.
GroupedBlock grouped_filter_block(GroupedProblem&, GroupedFilterSplit&, GroupedLanes, DType, int64_t pieces);

}  // namespace convgrad::cuda
