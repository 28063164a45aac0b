// Describes convolution windows for TMA's im2col mode: the first pixels of all windows, start + o *
// output_step along each axis, and an offset for each tap. One instruction then gathers a whole tile of the
// implicit product's rows, padding included, and no thread computes an address.
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

// Returns the number of the problem's axes without the leading ones that only fill up to three.
int spatial_axes(const ConvProblem&);

// Reports whether the hardware's fields can hold the windows of the last `axes` axes.
bool im2col_serves(const WindowAxis (&window)[kAxes], int axes);

// Returns a map with tiles of `pixels` windows' pixels by 128 bytes of channels, of activations `x` with
// `channels` in all.
Im2colMap im2col_map(const WindowAxis (&window)[kAxes], int axes, DType dtype, const void* x, int64_t batch,
                     int64_t channels, int pixels);

}  // namespace convgrad::cuda
