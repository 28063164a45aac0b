#include "cuda_src/grouped/plan.h"

#include <algorithm>
#include <initializer_list>
#include <numeric>

#include "common_src/integers.h"
#include "common_src/relation.h"
#include "cuda_src/split.h"

namespace convgrad::cuda {
namespace {

// A sum of three such numbers fits 31 bits.
bool fits(std::initializer_list<int64_t> factors) { return fits_bits(29, factors); }

bool fits(const Axis& axis) {
  return fits({axis.input, axis.input_dilation}) && fits({axis.output, axis.stride}) &&
         fits({axis.taps, axis.filter_dilation}) && fits({axis.pad_lo}) && fits({axis.input_dilation}) &&
         fits({axis.stride}) && fits({axis.filter_dilation});
}

GroupedAxis grouped_axis(const Axis& axis) {
  const int64_t common = std::gcd(axis.stride, axis.input_dilation);
  const Congruence taps(axis.filter_dilation, axis.input_dilation);
  const auto small = [](int64_t number) { return static_cast<int>(number); };
  return {small(axis.input),
          small(axis.taps),
          small(axis.output),
          small(axis.stride),
          small(axis.pad_lo),
          small(axis.input_dilation),
          small(axis.filter_dilation),
          small(std::clamp<int64_t>(axis.output, 1, axis.input_dilation / common)),
          small(axis.stride / common),
          small(taps.step),
          small(axis.filter_dilation / taps.common),
          small(taps.common),
          small(taps.inverse)};
}

bool is_one_position(const Axis& axis) {
  return axis.input == 1 && axis.output == 1 && axis.taps == 1 && axis.pad_lo == 0;
}

// Returns the threads along channels: whole 32-byte sectors, up to 64 or 128 bytes of a position.
int channel_threads(const GroupedProblem& p, GroupedLanes lanes, DType dtype) {
  const int64_t bytes = bytes_of(dtype) * lanes.lanes, sector = std::max<int64_t>(32 / bytes, 1);
  const int64_t most = lanes.lanes == 1 ? 64 / bytes : 8;
  return static_cast<int>(std::min(most, tiles_over(p.out_channels / lanes.lanes, sector) * sector));
}

unsigned panels_of(const GroupedProblem& p, GroupedLanes lanes, int threads) {
  return static_cast<unsigned>(tiles_over(p.out_channels / lanes.lanes, threads));
}

unsigned runs_of_row(const Axis& axis) { return static_cast<unsigned>(tiles_over(axis.output, kGroupedRun)); }

// A last axis of one position would leave all but one of a run's results idle, so it swaps places with the
// axes before it, which moves nothing in memory.
ConvProblem with_rows(const ConvProblem& problem) {
  ConvProblem p = problem;
  for (int i = 1; i < kAxes && is_one_position(p.axis[kAxes - 1]); ++i)
    std::rotate(p.axis, p.axis + kAxes - 1, p.axis + kAxes);
  return p;
}

}  // namespace

bool grouped_serves(const ConvProblem& p) {
  constexpr int64_t kChannels = 16;
  if (p.groups < 2 || p.group_in() > kChannels || p.group_out() > kChannels) return false;
  if (!fits({p.batch, p.inputs()}) || !fits({p.batch, p.outputs()}) || !fits({p.in_channels}) ||
      !fits({p.out_channels}) || !fits({p.taps(), kChannels}))
    return false;
  return std::all_of(p.axis, p.axis + kAxes,
                     [](const Axis& axis) { return fits(axis) && fits(axis.transpose()); });
}

GroupedLanes grouped_lanes(const ConvProblem& p) {
  const int vector = p.dtype == DType::kF64 ? 2 : 4;
  const int64_t in = p.group_in(), out = p.group_out();
  if (in == 1 && out == 1 && p.out_channels % vector == 0) return {vector, 1};
  // Eight f64 of x, of w and of two results would exceed a thread's registers.
  if (in == out && (in == 4 || (in == 8 && p.dtype != DType::kF64)))
    return {static_cast<int>(in), static_cast<int>(in)};
  return {1, 0};
}

GroupedProblem grouped_problem(const ConvProblem& problem) {
  const ConvProblem p = with_rows(problem);
  GroupedProblem grouped = {};
  for (int a = 0; a < kAxes; ++a) grouped.axis[a] = grouped_axis(p.axis[a]);
  grouped.in_channels = static_cast<int>(p.in_channels);
  grouped.out_channels = static_cast<int>(p.out_channels);
  grouped.group_in = static_cast<int>(p.group_in());
  grouped.group_out = static_cast<int>(p.group_out());
  grouped.rows = static_cast<int>(p.batch * p.axis[0].output * p.axis[1].output);
  return grouped;
}

bool is_windowed(const GroupedProblem& p, int taps, int stride, int input_dilation) {
  const GroupedAxis& axis = p.axis[kAxes - 1];
  return axis.taps == taps && axis.stride == stride && axis.input_dilation == input_dilation &&
         axis.filter_dilation == 1;
}

GroupedBlock grouped_activation_block(GroupedProblem& p, GroupedLanes lanes, DType dtype, int run,
                                      bool windowed) {
  const GroupedAxis& axis = p.axis[kAxes - 1];
  if (windowed) {
    p.shift = (axis.pad_lo % axis.input_dilation + axis.input_dilation) % axis.input_dilation;
    p.runs = static_cast<unsigned>(tiles_over(axis.output + p.shift, run));
  } else {
    p.shift = 0;
    p.runs = static_cast<unsigned>(axis.phases * tiles_over(tiles_over(axis.output, axis.phases), run));
  }
  const int x = channel_threads(p, lanes, dtype);
  p.panels = panels_of(p, lanes, x);
  if (p.rows == 0 || p.runs == 0 || p.panels == 0) return {1, 1, 1, 0};

  // A block whose results are about square reads the least beyond them; if rows share no sources, a long
  // block does. One run per block leaves no thread idle if the number of runs is odd.
  const bool rows_share = p.axis[0].taps * p.axis[1].taps > 1;
  const int64_t most = kGroupedThreads / x;
  int64_t y = rows_share ? (p.runs % 2 == 0 ? 2 : 1) : most;
  y = std::min<int64_t>({y, p.runs, most});
  // CUDA allows at most 64 threads along z.
  const int64_t z = std::min<int64_t>({most / y, p.rows, 64});
  y = std::min<int64_t>(most / z, p.runs);
  p.run_blocks = static_cast<unsigned>(tiles_over(p.runs, y));
  return {x, static_cast<int>(y), static_cast<int>(z),
          p.panels * static_cast<int64_t>(p.run_blocks) * tiles_over(p.rows, z)};
}

GroupedFilterSplit grouped_filter_split(const ConvProblem& problem) {
  // Enough blocks for a large device, and at most some thousand terms per thread.
  constexpr int64_t kBlocks = 528, kUnitsPerPart = 64, kMostUnits = 2048;
  const ConvProblem p = with_rows(problem);
  const GroupedProblem grouped = grouped_problem(problem);
  const GroupedLanes lanes = grouped_lanes(problem);
  const int64_t panels = std::max(panels_of(grouped, lanes, channel_threads(grouped, lanes, p.dtype)), 1u);
  const bool has_phases = filter_has_phases(p);
  const int64_t units =
      has_phases ? filter_depth(p) : grouped.rows * static_cast<int64_t>(runs_of_row(p.axis[kAxes - 1]));
  const int64_t run = has_phases ? kGroupedRun : 1;  // with phases a part has so many times more units
  const int64_t wanted = std::max(tiles_over(kBlocks, panels), tiles_over(units, kMostUnits * run));
  const int64_t parts = wgrad_parts(p, wanted, tiles_over(units, kUnitsPerPart * run));
  GroupedFilterSplit split = {};
  split.units = static_cast<unsigned>(units);
  split.units_per_part = static_cast<unsigned>(tiles_over(units, parts));
  split.parts =
      static_cast<unsigned>(std::max<int64_t>(tiles_over(units, std::max(split.units_per_part, 1u)), 1));
  return split;
}

GroupedBlock grouped_filter_block(GroupedProblem& p, GroupedFilterSplit& split, GroupedLanes lanes,
                                  DType dtype, int64_t pieces) {
  const int x = channel_threads(p, lanes, dtype);
  p.runs = static_cast<unsigned>(tiles_over(p.axis[kAxes - 1].output, kGroupedRun));
  p.panels = panels_of(p, lanes, x);
  if (p.panels == 0 || pieces == 0) return {1, 1, 1, 0};
  // The pieces read the same rows, so a block and its cache serve as many of them as possible.
  const int64_t most = std::min(16, kGroupedThreads / 2 / x);
  split.pieces = static_cast<unsigned>(pieces);
  split.piece_blocks = static_cast<unsigned>(tiles_over(pieces, most));
  const int64_t y = tiles_over(pieces, split.piece_blocks);
  const int64_t z = std::min<int64_t>(kGroupedThreads / x / y, 64);
  return {x, static_cast<int>(y), static_cast<int>(z),
          p.panels * static_cast<int64_t>(split.piece_blocks) * split.parts};
}

}  // namespace convgrad::cuda
