// How the kernels for few input channels lay a problem over blocks and shared memory, and which problems they
// serve: pure functions of the problem.
//
// A tile is a box of output positions, and its patch the inputs that the relation ties to them: a few rows of
// x, each one stretch of memory. A window is what one position is tied to: of each row of the filter's taps a
// run of numbers, (r2,c) next to each other, and the next position's window is `step` numbers further.
#pragma once

#include <cstdint>

#include "common_src/problem.h"

namespace convgrad::cuda {

struct FewChannelsAxis {
  int input, taps, output, stride, pad_lo, filter_dilation;
  int tile;    // outputs of a tile, a power of two
  int tiles;   // along the axis
  int extent;  // inputs of a patch
};

struct FewChannelsPlan {
  FewChannelsAxis axis[kAxes];
  int batch, channels, out_channels;
  int depth;  // numbers of a window
  int run;    // of them in one row of taps
  int step;

  // The patch in shared memory.
  int shift;       // numbers of a row before its first window, so that copies are of whole chunks
  int row_chunks;  // 16 bytes each
  int pitch;       // numbers from row to row
  int rows;
  int tiles;  // of the problem

  // Slots are the depth as the multiply-adds take it: the numbers of a window, with gaps. Where windows begin
  // at even places a run is taken in whole octets, whose numbers are read two by two: it begins with `lead`
  // numbers that are none of the window's, so that it too begins at an even place. Elsewhere slots are the
  // depth itself.
  bool paired;
  int lead, row_octets;  // of a run
  int octets;

  CONVGRAD_HD int64_t patch_numbers() const { return static_cast<int64_t>(rows) * pitch; }
};

// A block's tile of positions, and its columns, the output channels.
inline constexpr int few_channels_positions(DType dtype, bool filter) {
  const int positions = filter ? 128 : 256;
  return dtype == DType::kF64 ? positions / 2 : positions;
}
int few_channels_columns(const ConvProblem&);

// Tiles in shared memory, of which one is used while the others are copied. 16-bit filters' gradients have
// room for one more, and less to do in each.
inline constexpr int few_channels_stages(DType dtype, bool filter) {
  return filter && bytes_of(dtype) == 2 ? 3 : 2;
}

// The filter's gradient: warps of so many rows (slots) each, of a block that has at most so many warps.
inline constexpr int kFewChannelsWarpRows = 32, kFewChannelsWarps = 8;

// One group of 1 to 4 input channels, inputs not dilated, and steps that let a tile's patch, and in fprop the
// filter, fit into shared memory.
bool few_channels_serves(const ConvProblem&, bool filter);
inline constexpr const char* kFewChannelsServes =
    "one group of 1 to 4 input channels (in dgrad also output channels) whose inputs are not dilated, where "
    "the filter and the inputs of a tile of outputs fit into 96 KiB";

FewChannelsPlan few_channels_plan(const ConvProblem&, bool filter);

// Tiles that a block takes one after the other, with the filter that it has brought to shared memory once.
int few_channels_block_tiles(const ConvProblem&, const FewChannelsPlan&);

// Positions of a filter's gradient in parts of `length` tiles each.
struct FewChannelsSplit {
  int parts, length;
};
FewChannelsSplit few_channels_filter_split(const ConvProblem&);

}  // namespace convgrad::cuda
