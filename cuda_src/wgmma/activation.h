// What the wgmma kernel whose result is an activation is told of its problem: a parameter of the launch.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "cuda_src/divisor.cuh"
#include "cuda_src/wgmma/im2col.h"
#include "cuda_src/wgmma/plan.h"
#include "cuda_src/wgmma/tensor_map.h"

namespace convgrad::cuda {

// A phase of the outputs (phase.h), along three axes.
struct WgmmaPhase {
  TensorMap x;
  Divisor outputs[kAxes];
  int rows, first_tile;  // (n,o) of the phase; where its tiles of rows begin among all phases'
  int taps[kAxes], start[kAxes], output_step[kAxes], tap_step[kAxes];
  int o_first[kAxes], o_step[kAxes], r_first[kAxes], r_step[kAxes];
};

struct WgmmaActivation {
  TensorMap filter;
  int filter_group_depth, filter_group_columns;  // how far apart groups lie along the filter's dimensions
  int axes;                                      // that x has, and its maps with it
  int phases, row_tiles;
  Divisor column_tiles, groups;
  int group_in, group_out, out_channels, all_taps;
  int filter_taps[kAxes], output[kAxes];
  bool flipped;  // taps in reverse
  WgmmaPhase phase[kWgmmaPhases];
};

// How the filter lies in memory, last dimension contiguous, in the letters of the problem that the kernel is
// given (for dgrad the transposed one).
enum class FilterOrder {
  kAsStored,    // [r, c, K]: lines along the columns
  kDepthLast,   // [r, K, c]: a copy, lines along the depth
  kTransposed,  // [-r, k, C]: dgrad's own filter, lines along the depth, taps in reverse
};

// For 16-byte aligned arrays of a problem that wgmma_serves(). Phases with most taps come first, so that what
// a multiprocessor is left with at the end is short.
cudaError_t wgmma_activation_of(const ConvProblem&, FilterOrder, int columns, const void* x, const void* w,
                                WgmmaActivation*);

}  // namespace convgrad::cuda
