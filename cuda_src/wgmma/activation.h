// The launch parameter of the wgmma kernel whose result is an activation.
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
  int rows, first_tile;  // (n,o) of the phase; the phase's first tile of rows among those of all phases
  int taps[kAxes], start[kAxes], output_step[kAxes], tap_step[kAxes];
  int o_first[kAxes], o_step[kAxes], r_first[kAxes], r_step[kAxes];
};

struct WgmmaActivation {
  TensorMap filter;
  int filter_group_depth, filter_group_columns;  // from group to group along the filter's dimensions
  int axes;                                      // axes of x and of its maps
  int phases, row_tiles;
  Divisor column_tiles, groups;
  int group_in, group_out, out_channels, all_taps;
  int filter_taps[kAxes], output[kAxes];
  bool flipped;  // taps are reversed
  WgmmaPhase phase[kWgmmaPhases];
};

// How the filter lies in memory, in the letters of the kernel's problem (for dgrad the transposed one):
// MN-major [r, c, K] as stored, for fprop; K-major [-r, k, C] with reversed taps as stored, for dgrad;
// K-major [r, K, c] in a transposed copy, for fprop in TF32.
struct FilterLayout {
  Major major;
  bool flipped;
};

// Fills the launch parameter for a problem that wgmma_serves(), from arrays aligned to 16 bytes. Phases with
// most taps come first, so that the tiles that end last are short.
cudaError_t wgmma_activation_of(const ConvProblem&, FilterLayout, int columns, const void* x, const void* w,
                                WgmmaActivation*);

}  // namespace convgrad::cuda
