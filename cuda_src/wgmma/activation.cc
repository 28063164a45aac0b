#include "cuda_src/wgmma/activation.h"

#include <array>
#include <utility>

#include "common_src/integers.h"
#include "cuda_src/arch/encode.h"

namespace convgrad::cuda {
namespace {

using PhaseAxes = std::array<PhaseAxis, kAxes>;

int64_t taps_of(const PhaseAxes& phase) { return phase[0].taps * phase[1].taps * phase[2].taps; }

// Sorts the phases by their number of taps, descending; returns how many there are, or -1 if too many.
int phases_by_taps(const ConvProblem& p, std::array<PhaseAxes, kWgmmaPhases>& phases) {
  int count = 0;
  for (int64_t f0 = 0; f0 < phases_of(p.axis[0]); ++f0)
    for (int64_t f1 = 0; f1 < phases_of(p.axis[1]); ++f1)
      for (int64_t f2 = 0; f2 < phases_of(p.axis[2]); ++f2) {
        if (count == kWgmmaPhases) return -1;
        phases[count++] = {met_phase_of(p.axis[0], f0), met_phase_of(p.axis[1], f1),
                           met_phase_of(p.axis[2], f2)};
      }
  // Insertion sort is stable.
  for (int f = 1; f < count; ++f)
    for (int g = f; g > 0 && taps_of(phases[g - 1]) < taps_of(phases[g]); --g)
      std::swap(phases[g - 1], phases[g]);
  return count;
}

cudaError_t phase_parameters(const ConvProblem& p, int axes, const PhaseAxes& phase, const void* x,
                             WgmmaPhase* out) {
  WindowAxis window[kAxes];
  int64_t rows = p.batch;
  for (int a = 0; a < kAxes; ++a) {
    const PhaseAxis& from = phase[a];
    window[a] = window_axis(p.axis[a], from);
    rows *= from.outputs;
    out->outputs[a] = Divisor(from.outputs);
    out->taps[a] = static_cast<int>(from.taps);
    out->start[a] = static_cast<int>(from.first_start);
    out->output_step[a] = static_cast<int>(from.output_step);
    out->tap_step[a] = static_cast<int>(from.tap_step);
    out->o_first[a] = static_cast<int>(from.o_first);
    out->o_step[a] = static_cast<int>(from.o_step);
    out->r_first[a] = static_cast<int>(from.r_first);
    out->r_step[a] = static_cast<int>(from.r_step);
  }
  out->rows = static_cast<int>(rows);
  if (taps_of(phase) == 0) return cudaSuccess;  // no load uses the map
  return encode(im2col_map(window, axes, p.dtype, x, p.batch, p.in_channels, kWgmmaRows), &out->x);
}

TiledMap filter_map(const ConvProblem& p, FilterLayout layout, int columns, const void* w) {
  const int depth = wgmma_depth(p.dtype);
  TiledMap map = {};
  map.array.dtype = p.dtype;
  map.array.base = w;
  map.array.rank = 3;
  map.array.size[2] = p.taps();
  map.box[0] = depth;  // 128 bytes, along the depth or the columns
  map.box[1] = columns;
  map.box[2] = 1;
  if (layout.major == Major::kMN) {
    map.array.size[0] = p.out_channels;
    map.array.size[1] = p.group_in();
    map.box[1] = depth;
  } else if (layout.flipped) {
    map.array.size[0] = p.in_channels;
    map.array.size[1] = p.group_out();
  } else {
    map.array.size[0] = p.group_in();
    map.array.size[1] = p.out_channels;
  }
  map.array.stride_bytes[1] = map.array.size[0] * bytes_of(p.dtype);
  map.array.stride_bytes[2] = map.array.stride_bytes[1] * map.array.size[1];
  return map;
}

}  // namespace

cudaError_t wgmma_activation_of(const ConvProblem& p, FilterLayout layout, int columns, const void* x,
                                const void* w, WgmmaActivation* out) {
  *out = {};
  out->axes = spatial_axes(p);
  out->group_in = static_cast<int>(p.group_in());
  out->group_out = static_cast<int>(p.group_out());
  out->out_channels = static_cast<int>(p.out_channels);
  out->all_taps = static_cast<int>(p.taps());
  out->column_tiles = Divisor(tiles_over(p.group_out(), columns));
  out->groups = Divisor(p.groups);
  out->flipped = layout.flipped;
  out->filter_group_depth = out->flipped ? out->group_in : 0;
  out->filter_group_columns = out->flipped ? 0 : out->group_out;
  for (int a = 0; a < kAxes; ++a) {
    out->filter_taps[a] = static_cast<int>(p.axis[a].taps);
    out->output[a] = static_cast<int>(p.axis[a].output);
  }
  std::array<PhaseAxes, kWgmmaPhases> phases;
  out->phases = phases_by_taps(p, phases);
  if (out->phases < 0) return cudaErrorInvalidValue;
  for (int f = 0; f < out->phases; ++f) {
    WgmmaPhase& phase = out->phase[f];
    if (const cudaError_t error = phase_parameters(p, out->axes, phases[f], x, &phase)) return error;
    phase.first_tile = out->row_tiles;
    out->row_tiles += static_cast<int>(tiles_over(phase.rows, kWgmmaRows));
  }
  return encode(filter_map(p, layout, columns, w), &out->filter);
}

}  // namespace convgrad::cuda
