#include "cuda_src/wgmma/im2col.h"

#include <algorithm>

namespace convgrad::cuda {
namespace {

// Returns the far corner of the box of first pixels, relative to the last input.
int64_t upper_corner(const WindowAxis& window) {
  return window.start + (window.outputs - 1) * window.output_step - (window.input - 1);
}

bool is_filler(const Axis& axis) {
  return axis.input == 1 && axis.taps == 1 && axis.output == 1 && axis.pad_lo == 0;
}

}  // namespace

WindowAxis window_axis(const Axis& axis, const PhaseAxis& phase) {
  return {axis.input, phase.outputs, phase.taps, phase.first_start, phase.output_step, phase.tap_step};
}

int spatial_axes(const ConvProblem& p) {
  int filler = 0;
  while (filler < kAxes - 1 && is_filler(p.axis[filler])) ++filler;
  return kAxes - filler;
}

bool im2col_serves(const WindowAxis (&window)[kAxes], int axes) {
  // Corners have 16, 8 or 5 bits per axis, and so have offsets (the PTX ISA, "im2col mode";
  // cuTensorMapEncodeIm2col).
  constexpr int kBits[kAxes] = {16, 8, 5};
  const int64_t corner = int64_t{1} << (kBits[axes - 1] - 1), offset = int64_t{1} << kBits[axes - 1];
  constexpr int64_t kMostStep = 8, kMostSize = int64_t{1} << 31;
  const auto fits = [&](int64_t at) { return at >= -corner && at < corner; };
  return std::all_of(window + kAxes - axes, window + kAxes, [&](const WindowAxis& w) {
    return fits(w.start) && fits(upper_corner(w)) && w.output_step >= 1 && w.output_step <= kMostStep &&
           (w.taps - 1) * w.tap_step < offset && w.input < kMostSize;
  });
}

Im2colMap im2col_map(const WindowAxis (&window)[kAxes], int axes, DType dtype, const void* x, int64_t batch,
                     int64_t channels, int pixels) {
  Im2colMap map = {};
  map.array.dtype = dtype;
  map.array.base = x;
  map.array.rank = axes + 2;
  map.array.size[0] = channels;
  map.channels = static_cast<int>(128 / bytes_of(dtype));
  map.pixels = pixels;
  int64_t stride = channels * bytes_of(dtype);
  for (int d = 0; d < axes; ++d) {
    const WindowAxis& axis = window[kAxes - 1 - d];
    map.array.size[1 + d] = axis.input;
    map.array.stride_bytes[1 + d] = stride;
    map.lower[d] = static_cast<int>(axis.start);
    map.upper[d] = static_cast<int>(upper_corner(axis));
    map.step[d] = static_cast<int>(axis.output_step);
    stride *= axis.input;
  }
  map.array.size[axes + 1] = batch;
  map.array.stride_bytes[axes + 1] = stride;
  return map;
}

}  // namespace convgrad::cuda
