// Convolution windows as the tensor memory accelerator walks them (its im2col mode): the first pixels of all
// windows, start + o * output_step along each axis, and an offset for each tap. So one instruction gathers a
// whole tile of the implicit product's rows, padding included, and no thread computes an address.
#pragma once

#include <cstdint>

#include "common_src/phase.h"
#include "common_src/problem.h"
#include "cuda_src/arch/tensor_map.h"

namespace convgrad::cuda {

// An axis without zeros between its inputs: i = start + o * output_step + r * tap_step.
struct WindowAxis {
  int64_t input, outputs, taps;
  int64_t start, output_step, tap_step;
};
WindowAxis window_axis(const Axis&, const PhaseAxis&);

// How many of the problem's axes, counted from the last, are not the ones that fill up fewer than three.
int spatial_axes(const ConvProblem&);

// Whether the hardware's fields hold the windows of the last `axes` axes.
bool im2col_serves(const WindowAxis (&window)[kAxes], int axes);

// Tiles of `pixels` windows' pixels by 128 bytes of channels, of activations `x` with `channels` in all.
Im2colMap im2col_map(const WindowAxis (&window)[kAxes], int axes, DType dtype, const void* x, int64_t batch,
                     int64_t channels, int pixels);

}  // namespace convgrad::cuda
