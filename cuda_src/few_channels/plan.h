// Decides which problems the kernels for few input channels serve, and how they cut them into blocks and
// shared memory: pure functions of the problem.
//
// A tile is a box of output positions, and its patch the inputs that the relation ties to them: a few rows of
// x, each contiguous in memory. A window is what one position is tied to: from each row of the filter's taps
// a run of neighbouring numbers (r2,c). The next position's window is `step` numbers further.
#pragma once

#include <cstdint>

#include "common_src/problem.h"

namespace convgrad::cuda {

struct FewChannelsAxis {
  int input, taps, output, stride, pad_lo, filter_dilation;
  int tile;    // outputs per tile, a power of two
  int tiles;   // tiles along the axis
  int extent;  // inputs per patch
};

struct FewChannelsPlan {
  FewChannelsAxis axis[kAxes];
  int batch, channels, out_channels;
  int depth;  // numbers of a window
  int run;    // numbers of a window in one row of taps
  int step;

  // The patch in shared memory.
  int shift;       // numbers of a row before its first window, so that copies are whole chunks
  int row_chunks;  // chunks of 16 bytes per row
  int pitch;       // numbers from row to row
  int rows;
  int tiles;  // tiles of the problem

  // Slots are the depth in the order of the multiply-adds: the numbers of a window, with gaps. If windows
  // begin at even places, a run is read in whole octets, two numbers at a time; it then begins with `lead`
  // numbers that do not belong to the window, so that it begins at an even place too. Otherwise slots are the
  // depth itself.
  bool paired;
  int lead, row_octets;  // octets of a run
  int octets;

  CONVGRAD_HD int64_t patch_numbers() const { return static_cast<int64_t>(rows) * pitch; }
};

// A block's tile of positions, and its columns, which are output channels.
inline constexpr int few_channels_positions(DType dtype, bool filter) {
  const int positions = filter ? 128 : 256;
  return dtype == DType::kF64 ? positions / 2 : positions;
}
int few_channels_columns(const ConvProblem&);

// The number of patches in shared memory: one is multiplied while the others are copied. Gradients of 16-bit
// filters have room for one more, and less to compute per tile.
inline constexpr int few_channels_stages(DType dtype, bool filter) {
  return filter && bytes_of(dtype) == 2 ? 3 : 2;
}

// For the filter's gradient: rows (slots) per warp, and the most warps per block.
inline constexpr int kFewChannelsWarpRows = 32, kFewChannelsWarps = 8;

// Reports whether a problem has one group of 1 to 4 input channels, inputs that are not dilated, and steps
// small enough for a tile's patch, and in fprop the filter, to fit into shared memory.
bool few_channels_serves(const ConvProblem&, bool filter);
inline constexpr const char* kFewChannelsServes =
    "one group of 1 to 4 input channels (in dgrad also output channels) whose inputs are not dilated, where "
    "the filter and the inputs of a tile of outputs fit into 96 KiB";

FewChannelsPlan few_channels_plan(const ConvProblem&, bool filter);

// Returns the number of tiles over which a block loops with one copy of the filter.
int few_channels_block_tiles(const ConvProblem&, const FewChannelsPlan&);

// Splits the positions of a filter's gradient into parts of `length` tiles each.
struct FewChannelsSplit {
  int parts, length;
};
FewChannelsSplit few_channels_filter_split(const ConvProblem&);

}  // namespace convgrad::cuda
