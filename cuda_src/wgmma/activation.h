// What the wgmma kernel whose result is an activation is told of its problem: a parameter of the launch.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "common_src/major.h"
#include "cuda_src/arch/tensor_map.h"
#include "cuda_src/divisor.cuh"
#include "cuda_src/wgmma/im2col.h"
#include "cuda_src/wgmma/plan.h"

namespace convgrad::cuda {

// A phase of the outputs (common_src/phase.h), along three axes.
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

// How the filter lies in memory, in the letters of the problem that the kernel is given (for dgrad the
// transposed one): MN-major as fprop's is stored, [r, c, K]; K-major with flipped taps as dgrad's is, [-r, k,
// C]; K-major in a copy for fprop, [r, K, c].
struct FilterLayout {
  Major major;
  bool flipped;
};

// For 16-byte aligned arrays of a problem that wgmma_serves(). Phases with most taps come first, so that what
// a multiprocessor is left with at the end is short.
cudaError_t wgmma_activation_of(const ConvProblem&, FilterLayout, int columns, const void* x, const void* w,
                                WgmmaActivation*);

}  // namespace convgrad::cuda
