#include "cpu_src/winograd/plan.h"

#include <algorithm>
#include <cmath>

#include "common_src/integers.h"
#include "cpu_src/bf16_dots.h"
#include "cpu_src/met_taps.h"
#include "cpu_src/microkernels/activation_tile.h"
#include "cpu_src/microkernels/filter_tile.h"
#include "cpu_src/microkernels/winograd_transforms.h"
#include "cpu_src/pairs/pair_lists.h"

namespace convgrad::cpu {
namespace {

constexpr int64_t kTile = kWinogradTile, kPoints = kWinogradPoints;

bool can_transform(const Axis& axis) {
  return axis.taps == kWinogradTaps && axis.stride == 1 && axis.input_dilation == 1;
}

// Chooses the innermost axis that can be transformed, and a second one whose taps are a fixed step from each
// other together with those of the first.
struct Transformed {
  int inner = -1, outer = -1;
};
Transformed transformed_axes(const ConvProblem& p) {
  Transformed axes;
  for (int a = kAxes - 1; a >= 0; --a) {
    if (axes.inner < 0) {
      if (can_transform(p.axis[a])) axes.inner = a;
      continue;
    }
    if (can_transform(p.axis[a])) axes.outer = a;
    if (p.axis[a].taps > 1) break;
  }
  return axes;
}

TilesAlong tiles_along(const Axis& axis, bool transformed, int64_t x_step, int64_t y_step) {
  TilesAlong along;
  along.transformed = transformed;
  along.reach = transformed ? kPoints : axis.taps;
  along.results = transformed ? kTile : 1;
  const auto add = [&](int64_t first, int64_t step) {
    ++along.count;
    for (int64_t r = 0; r < along.reach; ++r) {
      const int64_t input = axis.input_at(first, r);
      along.input.push_back(input == kNone ? kNone : input * x_step);
    }
    for (int64_t j = 0; j < along.results; ++j) {
      const int64_t output = first + j * step;
      along.output.push_back(output < axis.output ? output * y_step : kNone);
    }
  };
  if (!transformed) {
    for (int64_t o = 0; o < axis.output; ++o) add(o, 1);
    return along;
  }
  for (int64_t phase = 0; phase < std::min(axis.filter_dilation, axis.output); ++phase)
    for (int64_t o = phase; o < axis.output; o += kTile * axis.filter_dilation) add(o, axis.filter_dilation);
  return along;
}

// Returns the tiles along an axis without listing them.
int64_t count_along(const Axis& axis, bool transformed) {
  if (!transformed) return axis.output;
  const int64_t d = axis.filter_dilation, longer = axis.output % d;
  return longer * divide_up(axis.output / d + 1, kTile) + (d - longer) * divide_up(axis.output / d, kTile);
}

int64_t count_tiles(const ConvProblem& p) {
  const Transformed axes = transformed_axes(p);
  int64_t tiles = p.batch;
  for (int a = 0; a < kAxes; ++a) tiles *= count_along(p.axis[a], a == axes.inner || a == axes.outer);
  return tiles;
}

int64_t count_other_taps(const ConvProblem& p) {
  const Transformed axes = transformed_axes(p);
  return p.taps() / kWinogradTaps / (axes.outer >= 0 ? kWinogradTaps : 1);
}

int64_t padded(int64_t channels) { return divide_up(channels, 16) * 16; }

double to_double(int64_t number) { return static_cast<double>(number); }

// Counts the pairs of an output and a tap that are tied to an input: padding is not multiplied, and on a
// small image most taps meet it. An axis that is not transformed can have so many taps that only an estimate
// is worth its time.
double tied_pairs(const Axis& axis) {
  constexpr int64_t kCounted = 16;
  if (axis.taps > kCounted || axis.input_dilation > 1) return most_pairs(axis);
  int64_t pairs = 0;
  for (int64_t r = 0; r < axis.taps; ++r) {
    const int64_t lo = axis.pad_lo - r * axis.filter_dilation;  // the first o has o * stride >= lo
    const int64_t first = std::max<int64_t>(divide_up(lo, axis.stride), 0),
                  end = divide_down(axis.input - 1 + lo, axis.stride) + 1;
    pairs += std::max<int64_t>(std::min(axis.output, end) - first, 0);
  }
  return to_double(pairs);
}

// Estimate the cycles of a core with 16 lanes and one multiply-add a cycle, as measured on such a core.
double cycles_of_tiles_of_sums(Op op, const ConvProblem& seen, Isa isa) {
  // Pairs of positions have to be made, pairs of channels are there.
  const double kPair = op == Op::kWgrad ? 0.7 : 0.58, kProduct = has_dots(seen.dtype, isa) ? kPair : 1.1;
  double products = to_double(seen.batch * seen.groups * seen.group_in());
  for (const Axis& axis : seen.axis) {
    products *= tied_pairs(axis);
  }
  return products * to_double(padded(seen.group_out())) / 16 * kProduct;
}

double cycles_of_winograd(Op op, const ConvProblem& seen) {
  const Transformed axes = transformed_axes(seen);
  const bool two = axes.outer >= 0, wgrad = op == Op::kWgrad;
  // Of a vector at one point.
  const double kProduct = wgrad ? 1.15 : 1.1, kTransform = two ? 8.5 : 12, kFilter = wgrad ? 9 : 8;
  const double tiles = to_double(count_tiles(seen)), other_taps = to_double(count_other_taps(seen));
  const double of_in = to_double(padded(seen.group_in())) / 16,
               of_out = to_double(padded(seen.group_out())) / 16,
               filter = other_taps * to_double(seen.group_in()) * of_out;
  // Blocks of the filter's gradient each transform what they multiply.
  const double of_tile = wgrad ? other_taps * (of_in * std::ceil(of_out / 4) + of_out * std::ceil(of_in / 4))
                               : other_taps * of_in + of_out;
  return to_double(seen.groups) * (two ? 36 : 6) *
         (tiles * (filter * kProduct + of_tile * kTransform) + filter * kFilter);
}

// The part of a core's second cache that a block's transformed numbers may take.
constexpr int64_t kBlockBytes = 640 << 10;
// A larger transformed filter is not kept: each task transforms what it multiplies by.
constexpr int64_t kSharedFilterBytes = 16 << 20;
constexpr int64_t kFewTasks = 16, kManyTasks = 64;

// wgrad's blocks: channels of x and of dy, and tiles along one axis or two.
constexpr int64_t kFilterChannels = 64, kFilterTiles1 = 64, kFilterTiles2 = 16;

int64_t filter_block_tiles(const ConvProblem& p) {
  return transformed_axes(p).outer >= 0 ? kFilterTiles2 : kFilterTiles1;
}

// Returns the parts of the tiles that wgrad sums apart. Partial sums take at most a quarter of the
// activations' memory.
int64_t wgrad_parts(const ConvProblem& p) {
  const int64_t filter = p.taps() * p.group_in() * p.out_channels,
                activations = p.batch * (p.inputs() * p.in_channels + p.outputs() * p.out_channels),
                fit = activations / 4 / std::max<int64_t>(filter, 1);
  const int64_t units = p.groups * count_other_taps(p) * divide_up(p.group_in(), kFilterChannels) *
                        divide_up(p.group_out(), kFilterChannels);
  const int64_t blocks = divide_up(count_tiles(p), filter_block_tiles(p));
  return std::max<int64_t>(std::min({kFewTasks / std::max<int64_t>(units, 1), divide_up(blocks, 4), fit}), 1);
}

int widest_panel(int64_t results, int lanes) { return results > lanes ? 2 : 1; }

}  // namespace

int winograd_axes(const ConvProblem& p) {
  const Transformed axes = transformed_axes(p);
  return (axes.inner >= 0) + (axes.outer >= 0);
}

WinogradTiles::WinogradTiles(const ConvProblem& p) : batch_(p.batch) {
  const Transformed axes = transformed_axes(p);
  axes_ = (axes.inner >= 0) + (axes.outer >= 0);
  int64_t x_step = p.in_channels, y_step = p.out_channels;
  other_taps_ = tap_step_ = 1;
  for (int a = kAxes - 1; a >= 0; --a) {
    const bool transformed = a == axes.inner || a == axes.outer;
    along_[a] = tiles_along(p.axis[a], transformed, x_step, y_step);
    taps_[a] = p.axis[a].taps;
    if (!transformed) other_taps_ *= taps_[a];
    if (a > axes.inner) tap_step_ *= taps_[a];
    x_step *= p.axis[a].input;
    y_step *= p.axis[a].output;
  }
  x_image_ = x_step;
  y_image_ = y_step;
}

int64_t WinogradTiles::first_tap(int64_t other_tap) const {
  int64_t tap = 0, step = 1;
  for (int a = kAxes - 1; a >= 0; --a) {
    if (!along_[a].transformed) {
      tap += other_tap % taps_[a] * step;
      other_tap /= taps_[a];
    }
    step *= taps_[a];
  }
  return tap;
}

WinogradTiles::Place WinogradTiles::place(int64_t tile) const {
  Place of;
  for (int a = kAxes - 1; a >= 0; --a) {
    of.at[a] = tile % along_[a].count;
    tile /= along_[a].count;
  }
  of.n = tile;
  return of;
}

bool winograd_serves(Op op, const ConvProblem& problem) {
  if (problem.dtype == DType::kF64) return false;
  const ConvProblem met = met_taps(problem).problem;
  return winograd_axes(op == Op::kDgrad ? met.transpose() : met) > 0;
}

bool winograd_pays_for_some_batch(Op op, const ConvProblem& problem) {
  constexpr int64_t kMany = 1 << 20;  // images
  ConvProblem many = problem;
  many.batch = kMany;
  return winograd_pays(op, many, Isa::kPlain);  // every instruction set has the same workspace
}

bool winograd_pays(Op op, const ConvProblem& problem, Isa isa) {
  if (!winograd_serves(op, problem)) return false;
  const ConvProblem met = met_taps(problem).problem, seen = op == Op::kDgrad ? met.transpose() : met;
  constexpr int64_t kLeast = 8;
  if (seen.group_in() < kLeast || seen.group_out() < kLeast) return false;
  const double clearly = 0.9;
  return clearly * cycles_of_tiles_of_sums(op, seen, isa) > cycles_of_winograd(op, seen);
}

WinogradPlan::WinogradPlan(const ConvProblem& problem, Major filter_major, Isa isa)
    : problem(problem), filter_major(filter_major), isa(isa), tiles(problem) {
  const ActivationTiles<float>& products = CONVGRAD_FOR_ISA(isa, activation_tiles<float>());
  // At least one channel, so that the plan of a problem without any divides by no zero.
  const int64_t results = std::max<int64_t>(problem.group_out(), 1),
                sources = std::max<int64_t>(problem.group_in(), 1);
  lanes = products.lanes;
  vectors = widest_panel(results, lanes);
  padded_results = divide_up(results, lanes) * lanes;
  shared = winograd_filter_bytes(problem) > 0;
  const int64_t pixels = products.most_pixels[vectors], point_bytes = tiles.points() * 4;
  if (shared) {
    block_columns = std::min<int64_t>(padded_results, 256);
    block_sources = std::min<int64_t>(sources, 128);
    const int64_t fit = kBlockBytes / (point_bytes * (padded(block_sources) + block_columns));
    block_tiles = std::max<int64_t>(fit / pixels, 1) * pixels;
  } else {
    block_columns = std::min<int64_t>(padded_results, 64);
    block_sources = std::min<int64_t>(sources, 32);
    block_tiles = divide_up(64, pixels) * pixels;
  }
  block_tiles = std::min(block_tiles, std::max<int64_t>(tiles.tiles(), 1));
  column_blocks = divide_up(results, block_columns);
  source_blocks = divide_up(sources, block_sources);
  tile_blocks = divide_up(tiles.tiles(), block_tiles);
  const int64_t others = problem.groups * column_blocks;
  task_blocks = std::max<int64_t>(tile_blocks * others / kManyTasks, 1);
}

int64_t WinogradPlan::tile_ranges() const { return divide_up(tile_blocks, task_blocks); }

int64_t winograd_filter_bytes(const ConvProblem& problem) {
  const int64_t points = winograd_axes(problem) == 1 ? 6 : 36, transformed_taps = points == 6 ? 3 : 9;
  const int64_t rows = problem.taps() / transformed_taps * problem.group_in();
  const int64_t bytes = problem.groups * points * (rows * padded(problem.group_out()) + 16) * 4;
  return bytes <= kSharedFilterBytes ? bytes : 0;
}

WinogradFilterPlan::WinogradFilterPlan(const ConvProblem& problem, Isa isa)
    : problem(problem), isa(isa), tiles(problem) {
  const FilterTiles<float>& products = CONVGRAD_FOR_ISA(isa, filter_tiles<float>());
  lanes = products.lanes;
  const int64_t results = std::max<int64_t>(problem.group_out(), 1),
                sources = std::max<int64_t>(problem.group_in(), 1);
  vectors = widest_panel(results, lanes);
  block_sources = std::min(sources, kFilterChannels);
  block_columns = std::min(divide_up(results, lanes) * lanes, kFilterChannels);
  source_blocks = divide_up(sources, block_sources);
  column_blocks = divide_up(results, block_columns);
  block_tiles = std::min(filter_block_tiles(problem), std::max<int64_t>(tiles.tiles(), 1));
  tile_blocks = divide_up(tiles.tiles(), block_tiles);
  parts = wgrad_parts(problem);
}

int64_t winograd_partial_bytes(const ConvProblem& problem) {
  if (problem.in_channels == 0 || problem.out_channels == 0) return 0;  // there are no sums
  const int64_t parts = wgrad_parts(problem);
  if (parts == 1 && problem.result_dtype() == DType::kF32) return 0;
  return parts * problem.taps() * problem.group_in() * problem.out_channels * 4;
}

}  // namespace convgrad::cpu
