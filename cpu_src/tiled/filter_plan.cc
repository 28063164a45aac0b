#include "cpu_src/tiled/filter_plan.h"

#include <algorithm>
#include <limits>
#include <numeric>

#include "common_src/integers.h"
#include "cpu_src/bf16_dots.h"
#include "cpu_src/flatten.h"
#include "cpu_src/microkernels/filter_tile.h"
#include "cpu_src/regions.h"

namespace convgrad::cpu {
namespace {

// Positions that are added before they join the rest: few enough for a panel of dy to stay in the first-level
// cache, and for an accurate sum.
constexpr int64_t kFilterRun = 256;
// Limits for tasks. Every part of the units reads all of x again, so these parts are few.
constexpr int64_t kPositionParts = 64, kUnitParts = 16, kPartUnits = 12, kTaskTerms = 1 << 20;

// Blocks are whole lines if lines are short, pieces of lines if they are long.
int64_t pieces(const ConvProblem& p) {
  return std::max<int64_t>((p.axis[2].output + kFilterRun / 2) / kFilterRun, 1);
}
int64_t lines_of_block(const ConvProblem& p) {
  return pieces(p) > 1 ? 1 : std::max<int64_t>(kFilterRun / std::max<int64_t>(p.axis[2].output, 1), 1);
}
int64_t blocks_of(const ConvProblem& p) {
  const int64_t lines = p.batch * p.axis[0].output * p.axis[1].output;
  return divide_up(lines, lines_of_block(p)) * pieces(p);
}

int64_t wanted_tasks(const ConvProblem& p, int64_t most) {
  const int64_t terms = p.batch * p.outputs() * p.taps() * p.group_in() * p.out_channels;
  return std::clamp<int64_t>(terms / kTaskTerms, 1, most);
}

int64_t filter_size(const ConvProblem& p) { return p.taps() * p.group_in() * p.out_channels; }

// Returns as many parts as tasks, but limits partial sums to the filter's own size or a twentieth of the
// activations.
int64_t position_parts_of(const ConvProblem& p) {
  const int64_t bytes = bytes_of(p.dtype);
  const int64_t activations = p.batch * (p.inputs() * p.in_channels + p.outputs() * p.out_channels) * bytes;
  const int64_t allowed = std::max(filter_size(p) * bytes, activations / 20);
  const int64_t parts = allowed / std::max<int64_t>(filter_size(p) * sum_bytes(p.dtype), 1);
  return std::max<int64_t>(std::min({wanted_tasks(p, kPositionParts), blocks_of(p), parts}), 1);
}

// Returns a tile's cycles for one position, on a machine of two multiply-adds and two loads per cycle.
double filter_tile_cycles(double channels, int vectors) {
  const double loads = (channels + vectors) / 2;
  return std::max({channels * vectors / 2, loads, 1.0}) + loads / 16;
}

}  // namespace

bool FilterPlan::joins_taps(const ConvProblem& p) {
  const Axis& axis = p.axis[2];
  return p.group_in() < 8 && axis.taps > 1 && axis.filter_dilation == 1 && axis.input_dilation == 1;
}

// Reports whether the transposed problem has far fewer outputs without an input: those between the inputs, or
// on the padding.
bool FilterPlan::swaps(const ConvProblem& p) {
  constexpr double kFarApart = 12, kPadding = 16;
  double outputs = 1, inputs = 1;  // from one position that a tap ties to the next
  for (const Axis& axis : p.axis) {
    const double common = static_cast<double>(std::gcd(axis.stride, axis.input_dilation));
    outputs *= static_cast<double>(axis.input_dilation) / common;
    inputs *= static_cast<double>(axis.stride) / common;
  }
  if (inputs == 1 && static_cast<double>(p.outputs()) > kPadding * static_cast<double>(p.inputs()))
    return true;
  return outputs >= kFarApart && outputs > inputs;
}

namespace {

ConvProblem summed(const ConvProblem& p) { return flatten(FilterPlan::swaps(p) ? p.transpose() : p); }

}  // namespace

FilterPlan::FilterPlan(const ConvProblem& original, Isa isa)
    : isa(isa),
      swapped(swaps(original)),
      problem(summed(original)),
      outputs_of_tap(convgrad::outputs_of_tap(problem.axis[2])),
      joined(joins_taps(problem)),
      pairs(has_dots(problem.dtype, isa) && problem.axis[2].output > 1) {
  const bool f64 = problem.dtype == DType::kF64;
  lanes = f64 ? CONVGRAD_FOR_ISA(isa, filter_tiles<double>()).lanes
              : CONVGRAD_FOR_ISA(isa, filter_tiles<float>()).lanes;
  const int* most = f64 ? CONVGRAD_FOR_ISA(isa, filter_tiles<double>()).most_channels
                        : CONVGRAD_FOR_ISA(isa, filter_tiles<float>()).most_channels;
  rows = problem.group_in() * (joined ? problem.axis[2].taps : 1);
  const int64_t needed = divide_up(problem.group_out(), lanes);
  double best = std::numeric_limits<double>::infinity();
  vectors = 1;
  for (int candidate = 1; candidate <= kMaxFilterVectors; ++candidate) {
    // A run's panel of dy must stay in the first-level cache.
    constexpr int64_t kCached = 36 << 10;
    if (candidate > 1 && candidate * lanes * kFilterRun * sum_bytes(problem.dtype) > kCached) break;
    // The last panel's tiles are as long as the others'.
    const int64_t split = divide_up(rows, most[candidate]);
    double cycles = 0;
    for (int64_t left = needed; left > 0; left -= candidate) {
      const int width = static_cast<int>(std::min<int64_t>(left, candidate));
      cycles += static_cast<double>(split) *
                filter_tile_cycles(static_cast<double>(rows) / static_cast<double>(split), width);
    }
    if (cycles < best) best = cycles, vectors = candidate;
  }
  panels = divide_up(problem.group_out(), panel_width());
  tiles = divide_up(rows, most[vectors]);
  position_parts = position_parts_of(problem);
  unit_parts = std::clamp<int64_t>(divide_up(wanted_tasks(problem, kUnitParts), position_parts), 1,
                                   std::max<int64_t>(units() / kPartUnits, 1));
}

int64_t FilterPlan::panel_channels(int64_t panel) const {
  return std::min(panel_width(), problem.group_out() - panel * panel_width());
}

int FilterPlan::panel_vectors(int64_t panel) const {
  return static_cast<int>(divide_up(panel_channels(panel), lanes));
}

int64_t FilterPlan::units() const {
  return problem.groups * panels * problem.axis[0].taps * problem.axis[1].taps * taps2() * tiles;
}

FilterUnit FilterPlan::unit(int64_t index) const {
  // The panel is outermost: all its units share its part of dy.
  FilterUnit unit;
  const int64_t tile = index % tiles;
  index /= tiles;
  unit.tap2 = index % taps2();
  index /= taps2();
  unit.tap1 = index % problem.axis[1].taps;
  index /= problem.axis[1].taps;
  unit.tap0 = index % problem.axis[0].taps;
  index /= problem.axis[0].taps;
  unit.panel = index % panels;
  unit.group = index / panels;
  unit.first_row = rows * tile / tiles;
  unit.rows = rows * (tile + 1) / tiles - unit.first_row;
  return unit;
}

int64_t FilterPlan::next_within(int64_t index, const TapBounds (&bounds)[kAxes]) const {
  while (index < units()) {
    const FilterUnit unit = this->unit(index);
    const int64_t taps[kAxes] = {problem.axis[0].taps, problem.axis[1].taps, taps2()};
    const int64_t at[kAxes] = {unit.tap0, unit.tap1, unit.tap2};
    int64_t size = problem.axis[1].taps * taps2() * tiles;  // units per tap of the axis
    int axis = 0;
    while (axis < kAxes && bounds[axis].hold(at[axis])) size /= ++axis < kAxes ? taps[axis] : 1;
    if (axis == kAxes) return index;
    const int64_t dst = at[axis] < bounds[axis].first && bounds[axis].first < bounds[axis].last
                            ? bounds[axis].first
                            : taps[axis];
    index += (dst - at[axis]) * size - index % size;
  }
  return index;
}

int64_t FilterPlan::blocks() const { return blocks_of(problem); }

PositionBlock FilterPlan::block(int64_t index) const {
  const int64_t in_line = pieces(problem), piece = index % in_line, outputs = problem.axis[2].output;
  const int64_t first = index / in_line * lines_of_block(problem);
  return {first, std::min(first + lines_of_block(problem), lines()), outputs * piece / in_line,
          outputs * (piece + 1) / in_line};
}

FilterTask FilterPlan::task(int64_t index) const {
  const int64_t part = index / unit_parts, units_part = index % unit_parts;
  return {blocks() * part / position_parts, blocks() * (part + 1) / position_parts,
          units() * units_part / unit_parts, units() * (units_part + 1) / unit_parts};
}

int64_t partial_filter_bytes(const ConvProblem& problem) {
  const ConvProblem merged = summed(problem);
  const int64_t parts = position_parts_of(merged);
  return parts == 1 ? 0 : parts * filter_size(merged) * sum_bytes(merged.dtype);
}

}  // namespace convgrad::cpu
