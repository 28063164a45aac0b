// Decides which problems the grouped kernels serve, and how they cut them into blocks and threads, in 32
// bits: pure functions of the problem.
//
// Results lie along a row, the last axis, in short runs that one thread keeps in its registers. If inputs are
// dilated (in dgrad: if there is a stride), results o and o + phases meet the same taps, and a run belongs to
// a single phase.
#pragma once

#include <cstdint>

#include "common_src/problem.h"

namespace convgrad::cuda {

inline constexpr int kGroupedThreads = 256;
inline constexpr int kGroupedRun = 8;  // positions per thread at a time, fewer for wide lanes

// An axis, with its relation seen from the result's side. If tap r is tied to result o, so is r + tap_step,
// whose source is tap_source_step further.
struct GroupedAxis {
  int input, taps, output, stride, pad_lo, input_dilation, filter_dilation;
  int phases;       // results o and o + phases meet the same taps,
  int source_step;  // at sources this far apart
  int tap_step, tap_source_step;
  int tap_common, tap_inverse;  // of filter_dilation: its common divisor with input_dilation, and its
                                // inverse, to find the first tap
};

// A thread's neighbouring channels, and how groups divide them.
struct GroupedLanes {
  int lanes;
  int group;  // 1: each lane is a group; equal to lanes: all lanes are one group; 0: one lane, in groups of
              // any size
};

struct GroupedProblem {
  GroupedAxis axis[kAxes];
  int in_channels, out_channels, group_in, group_out;
  int rows;   // (n,o0,o1)
  int shift;  // the windowed kernel's first run begins at result -shift
  unsigned runs;
  unsigned panels;  // blocks along the channels
  unsigned run_blocks;
};

// The threads of a block along channels (x), runs or pieces of the filter (y), and rows or slots of a sum
// (z).
struct GroupedBlock {
  int x, y, z;
  int64_t blocks;
};

// Reports whether a problem has several groups of at most 16 channels on either side, and numbers of
// positions, taps and channels that each fit 32 bits with room to spare; elements are counted in 64 bits.
bool grouped_serves(const ConvProblem&);
inline constexpr const char* kGroupedServes =
    "several groups of at most 16 channels, in and out, fewer than 2^29 positions and 2^25 taps";

GroupedLanes grouped_lanes(const ConvProblem&);
GroupedProblem grouped_problem(const ConvProblem&);

// Reports whether the last axis fits a compiled window of `taps` neighbours.
bool is_windowed(const GroupedProblem&, int taps, int stride, int input_dilation);

// Sets runs, shift and panels for results in runs of `run`.
GroupedBlock grouped_activation_block(GroupedProblem&, GroupedLanes, DType, int run, bool windowed);

// Splits a filter's gradient into `parts` of its units. A unit is a run of a row, or with phases of the taps
// (common_src/phase.h) a position of one. A thread has one piece of the filter.
struct GroupedFilterSplit {
  unsigned parts;
  unsigned units, units_per_part;
  unsigned pieces, piece_blocks;
};
GroupedFilterSplit grouped_filter_split(const ConvProblem&);  // leaves the pieces at 0

// Sets runs, panels, and the split's pieces.
GroupedBlock grouped_filter_block(GroupedProblem&, GroupedFilterSplit&, GroupedLanes, DType, int64_t pieces);

}  // namespace convgrad::cuda
