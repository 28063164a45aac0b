// What the wgmma kernel whose result is an activation is told of its problem: a parameter of the launch.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "cuda_src/divisor.cuh"
#include "cuda_src/im2col.h"
#include "cuda_src/tensor_map.h"
#include "cuda_src/wgmma_plan.h"

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
  TensorMap filter;  // its dimensions: k or c, whichever is contiguous, then the other, then the taps
  int axes;          // that x has, and its maps with it
  int phases, row_tiles;
  Divisor column_tiles, groups;
  int group_in, group_out, out_channels, all_taps;
  int filter_taps[kAxes], output[kAxes];
  bool flipped;  // the filter is the transposed problem's: taps in reverse, c and k traded
  WgmmaPhase phase[kWgmmaPhases];
};

// For 16-byte aligned arrays of a problem that wgmma_serves(). `flipped` is dgrad's, whose problem comes
// transposed. Phases with most taps come first, so that what a multiprocessor is left with at the end is
// short.
cudaError_t wgmma_activation_of(const ConvProblem&, bool flipped, int columns, const void* x, const void* w,
                                WgmmaActivation*);

}  // namespace convgrad::cuda
