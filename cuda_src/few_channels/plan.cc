#include "cuda_src/few_channels/plan.h"

#include <algorithm>
#include <initializer_list>

#include "common_src/integers.h"
#include "cuda_src/split.h"

namespace convgrad::cuda {
namespace {

// A sum of three such numbers, or four times one of them, fits 31 bits.
constexpr int kBits = 28;

// Every device from compute capability 8.0 on allows a block at least 99 KiB.
constexpr int64_t kMostShared = 96 << 10;

bool is_small(const ConvProblem& p) {
  const int64_t C = p.in_channels;
  const auto fits = [](std::initializer_list<int64_t> factors) { return fits_bits(kBits, factors); };
  const auto& [a, b, c] = p.axis;
  return p.groups == 1 && 1 <= C && C <= 4 && fits({p.out_channels}) && fits({a.taps, b.taps, c.taps}) &&
         fits({p.batch}) && fits({a.input, b.input, c.input, C}) && fits({a.output, b.output, c.output}) &&
         fits_bits(31, {p.batch, p.outputs()}) && std::all_of(p.axis, p.axis + kAxes, [&](const Axis& axis) {
           return axis.input_dilation == 1 && fits({axis.output, axis.stride, C}) &&
                  fits_bits(18, {axis.stride}) && fits({axis.taps, axis.filter_dilation, C}) &&
                  fits({axis.pad_lo, C});
         });
}

int remainder(int64_t number, int64_t by) { return static_cast<int>((number % by + by) % by); }

FewChannelsAxis axis_of(const Axis& axis, int tile) {
  const auto small = [](int64_t number) { return static_cast<int>(number); };
  return {small(axis.input),
          small(axis.taps),
          small(axis.output),
          small(axis.stride),
          small(axis.pad_lo),
          small(axis.filter_dilation),
          tile,
          small(tiles_over(axis.output, tile)),
          small((tile - 1) * axis.stride + (axis.taps - 1) * axis.filter_dilation + 1)};
}

FewChannelsPlan with_tile(const ConvProblem& p, const int (&tile)[kAxes]) {
  FewChannelsPlan plan = {};
  for (int a = 0; a < kAxes; ++a) plan.axis[a] = axis_of(p.axis[a], tile[a]);
  const FewChannelsAxis& row = plan.axis[kAxes - 1];
  const int C = static_cast<int>(p.in_channels), chunk = static_cast<int>(16 / bytes_of(p.dtype));
  plan.batch = static_cast<int>(p.batch);
  plan.channels = C;
  plan.out_channels = static_cast<int>(p.out_channels);
  plan.depth = static_cast<int>(p.taps()) * C;
  plan.run = row.taps * C;
  plan.step = row.stride * C;
  plan.paired = plan.step % 2 == 0 && (row.filter_dilation == 1 || row.taps == 1);
  const int64_t pad = p.axis[kAxes - 1].pad_lo * C;
  plan.lead = plan.paired ? remainder(pad, 2) : 0;
  plan.row_octets = static_cast<int>(tiles_over(plan.lead + plan.run, 8));
  plan.octets = plan.paired ? static_cast<int>(plan.depth / plan.run) * plan.row_octets
                            : static_cast<int>(tiles_over(plan.depth, 8));

  // A tile has a multiple of eight positions along the row, which are whole chunks, so every tile's row has
  // the same shift.
  plan.shift = remainder(-pad - plan.lead, chunk);
  const int64_t window = plan.paired ? plan.row_octets * 8 : ((row.taps - 1) * row.filter_dilation + 1) * C;
  const int64_t row_numbers = plan.shift + static_cast<int64_t>(row.tile - 1) * plan.step + window;
  plan.row_chunks = static_cast<int>(tiles_over(row_numbers, chunk));
  // Consecutive rows are half of the banks apart, so that an octet from each can be read at once.
  const int lines = static_cast<int>(tiles_over(plan.row_chunks, 4)) | 1;  // of 64 bytes
  plan.pitch = lines * 4 * chunk;
  plan.rows = plan.axis[0].extent * plan.axis[1].extent;
  plan.tiles = static_cast<int>(p.batch * plan.axis[0].tiles * plan.axis[1].tiles * row.tiles);
  return plan;
}

int64_t shared_bytes(const ConvProblem& p, const FewChannelsPlan& plan, bool filter) {
  const int64_t size = bytes_of(p.dtype), columns = few_channels_columns(p);
  const int64_t patch = static_cast<int64_t>(plan.axis[0].extent) * plan.axis[1].extent * plan.pitch * size;
  const int stages = few_channels_stages(p.dtype, filter),
            positions = few_channels_positions(p.dtype, filter);
  if (filter) return stages * (patch + positions * columns * size);
  const int64_t slots = tiles_over(plan.octets, 2) * 16;
  return stages * patch + slots * (columns * size + 2 * sizeof(int32_t)) + positions * sizeof(int64_t);
}

// Returns the plan whose tile needs the least traffic, or a plan without rows if no tile fits.
FewChannelsPlan best_plan(const ConvProblem& p, bool filter) {
  const int positions = few_channels_positions(p.dtype, filter);
  FewChannelsPlan best = {};
  double least = 0;
  for (int row = 8; row <= positions; row *= 2) {
    for (int column = 1; row * column <= positions; column *= 2) {
      const int tile[] = {positions / row / column, column, row};
      const auto rows = [&](int a) {  // rows of a patch along the axis
        return (tile[a] - 1) * p.axis[a].stride + (p.axis[a].taps - 1) * p.axis[a].filter_dilation + 1;
      };
      if (rows(0) >= kMostShared || rows(1) >= kMostShared || rows(0) * rows(1) >= kMostShared) continue;
      const FewChannelsPlan plan = with_tile(p, tile);
      if (shared_bytes(p, plan, filter) > kMostShared) continue;
      const double bytes = static_cast<double>(bytes_of(p.dtype)) *
                           (static_cast<double>(plan.patch_numbers()) +
                            static_cast<double>(positions) * static_cast<double>(p.out_channels));
      const double cost = bytes * plan.tiles;
      if (best.rows != 0 && cost >= least) continue;
      best = plan;
      least = cost;
    }
  }
  return best;
}

}  // namespace

int few_channels_columns(const ConvProblem& p) {
  return p.dtype == DType::kF64 || p.out_channels <= 32 ? 32 : 64;
}

bool few_channels_serves(const ConvProblem& p, bool filter) {
  return is_small(p) && p.taps() > 0 && best_plan(p, filter).rows != 0;
}

FewChannelsPlan few_channels_plan(const ConvProblem& p, bool filter) { return best_plan(p, filter); }

int few_channels_block_tiles(const ConvProblem& p, const FewChannelsPlan& plan) {
  // Enough blocks to fill a large device a few times over, and enough tiles per block to make the copy of its
  // filter cheap.
  constexpr int64_t kBlocks = 1024, kMostTiles = 16;
  const int64_t columns = tiles_over(p.out_channels, few_channels_columns(p));
  return static_cast<int>(std::min(std::max<int64_t>(plan.tiles * columns / kBlocks, 1), kMostTiles));
}

FewChannelsSplit few_channels_filter_split(const ConvProblem& p) {
  // About four thousand terms per sum, whose rounding error stays small, but enough parts to give a large
  // device a few blocks per multiprocessor, and at least two tiles per part.
  constexpr int64_t kTerms = 4096, kBlocks = 528;
  const FewChannelsPlan plan = few_channels_plan(p, true);
  const int64_t columns = tiles_over(p.out_channels, few_channels_columns(p));
  const int64_t wanted =
      std::max(tiles_over(p.batch * p.outputs(), kTerms), tiles_over(kBlocks, std::max<int64_t>(columns, 1)));
  const int64_t parts = wgrad_parts(p, wanted, plan.tiles / 2);
  const int64_t length = std::max<int64_t>(tiles_over(plan.tiles, parts), 1);
  return {static_cast<int>(std::max<int64_t>(tiles_over(plan.tiles, length), 1)), static_cast<int>(length)};
}

}  // namespace convgrad::cuda
