#include "cuda_src/plan_facts.h"

#include <algorithm>

#include "common_src/integers.h"
#include "common_src/phase.h"
#include "cuda_src/bias/plan.h"
#include "cuda_src/block/choice.h"
#include "cuda_src/few_channels/plan.h"
#include "cuda_src/flatten.h"
#include "cuda_src/grouped/plan.h"
#include "cuda_src/is_empty.h"
#include "cuda_src/split.h"
#include "cuda_src/tiled/tile_shape.h"
#include "cuda_src/wgmma/plan.h"

namespace convgrad::cuda {
namespace {

const char* name_of(Math math) {
  switch (math) {
    case Math::kBF16:
      return "bf16 on tensor cores";
    case Math::kF16:
      return "f16 on tensor cores";
    case Math::kTF32:
      return "TF32 on tensor cores";
    case Math::kF64:
      return "f64 on tensor cores";
    case Math::kF32:
      break;
  }
  return "f32 multiply-adds";
}

void add_tile(Op op, int64_t rows, int64_t columns, Facts& facts) {
  facts.emplace_back(op == Op::kWgrad ? "tile_rows" : "tile_pixels", rows);
  facts.emplace_back("tile_channels", columns);
}

void add_tasks(int64_t tasks, Facts& facts) { facts.emplace_back("tasks", std::vector<int64_t>{tasks}); }

// Adds the facts of kernels that multiply the matrices of each phase in tiles. `p` is fprop's problem
// (dgrad's is transposed) or wgrad's.
void add_product(Op op, const ConvProblem& p, TileShape tile, int64_t parts, Facts& facts) {
  const Phases phases(p, op == Op::kWgrad ? ResultIs::kTaps : ResultIs::kOutputs);
  const int64_t rows = op == Op::kWgrad ? phases.most_taps() * p.group_in() : p.batch * phases.most_outputs();
  add_tile(op, tile.rows, tile.columns, facts);
  facts.emplace_back("phases", phases.count());
  if (op == Op::kWgrad) facts.emplace_back("partial_sums", parts);
  add_tasks(phases.count() * tiles_over(rows, tile.rows) * tiles_over(p.group_out(), tile.columns) *
                p.groups * parts,
            facts);
}

void add_gemm(Op op, const ConvProblem& p, bool tf32, Facts& facts) {
  const bool filter = op == Op::kWgrad;
  const GemmChoice choice = filter ? gemm_filter_choice(p, tf32) : gemm_activation_choice(p, tf32);
  facts.emplace_back("arithmetic", name_of(choice.math));
  const TileShape small = filter ? kSmallFilterTile : kSmallActivationTile;
  add_product(op, p, takes_large_tile(choice) ? kLargeTile : small, filter ? gemm_wgrad_split(p).parts : 1,
              facts);
}

void add_wgmma(Op op, const ConvProblem& p, Facts& facts) {
  facts.emplace_back("arithmetic", name_of(math_of(p.dtype, true)));
  if (op == Op::kWgrad) {
    const int64_t parts = wgmma_filter_split(p).parts,
                  row_tiles = tiles_over(wgmma_filter_chunks(p), 2) * p.groups * parts;
    const int columns = wgmma_columns(row_tiles, p.group_out());
    add_tile(op, kWgmmaRows, columns, facts);
    facts.emplace_back("partial_sums", parts);
    add_tasks(row_tiles * tiles_over(p.group_out(), columns), facts);
    return;
  }
  const int columns = wgmma_columns(tiles_over(p.batch * p.outputs(), kWgmmaRows) * p.groups, p.group_out());
  add_tile(op, kWgmmaRows, columns, facts);
  // Each phase has its own tiles.
  int64_t phases = 0, row_tiles = 0;
  for (int64_t f0 = 0; f0 < phases_of(p.axis[0]); ++f0) {
    for (int64_t f1 = 0; f1 < phases_of(p.axis[1]); ++f1) {
      for (int64_t f2 = 0; f2 < phases_of(p.axis[2]); ++f2) {
        const int64_t rows = p.batch * phase_of(p.axis[0], f0).outputs * phase_of(p.axis[1], f1).outputs *
                             phase_of(p.axis[2], f2).outputs;
        row_tiles += tiles_over(rows, kWgmmaRows);
        ++phases;
      }
    }
  }
  facts.emplace_back("phases", phases);
  add_tasks(row_tiles * p.groups * tiles_over(p.group_out(), columns), facts);
}

void add_few_channels(Op op, const ConvProblem& p, bool tf32, Facts& facts) {
  const bool filter = op == Op::kWgrad;
  const FewChannelsPlan plan = few_channels_plan(p, filter);
  facts.emplace_back("arithmetic", name_of(math_of(p.dtype, tf32)));
  const bool wide = p.out_channels * bytes_of(p.dtype) % 16 == 0;
  const int64_t columns = wide ? few_channels_columns(p) : 32;
  const int64_t positions = few_channels_positions(p.dtype, filter);
  add_tile(op, filter ? plan.depth : positions, columns, facts);
  if (filter) {
    const int64_t parts = few_channels_filter_split(p).parts;
    const bool paired = plan.paired && math_of(p.dtype, tf32) != Math::kF32;
    const int64_t slots = paired ? plan.octets * 8 : plan.depth,
                  warps = tiles_over(slots, kFewChannelsWarpRows);
    facts.emplace_back("partial_sums", parts);
    add_tasks(tiles_over(p.out_channels, columns) * tiles_over(warps, kFewChannelsWarps) * parts, facts);
  } else {
    add_tasks(tiles_over(plan.tiles, few_channels_block_tiles(p, plan)) * tiles_over(p.out_channels, columns),
              facts);
  }
}

// Reports whether grouped/activation.cu has a kernel compiled for the window of a depthwise problem.
bool has_window(const GroupedProblem& p, DType dtype) {
  for (const int taps : {3, 5, 7}) {
    if (taps > 3 && dtype == DType::kF64) break;
    if (is_windowed(p, taps, 1, 1) || is_windowed(p, taps, 2, 1) || is_windowed(p, taps, 1, 2)) return true;
  }
  return false;
}

void add_grouped(Op op, const ConvProblem& p, Facts& facts) {
  const GroupedLanes lanes = grouped_lanes(p);
  facts.emplace_back("lanes", int64_t{lanes.lanes});
  if (op == Op::kWgrad) {
    facts.emplace_back("partial_sums", int64_t{grouped_filter_split(p).parts});
    return;
  }
  GroupedProblem grouped = grouped_problem(p);
  const bool windowed = lanes.group == 1 && has_window(grouped, p.dtype);
  // A thread of the general kernel has 32 registers of sums at most (kRunOf in grouped/grouped.cuh).
  const int64_t sum_bytes = lanes.lanes * bytes_of_sum(p.dtype);
  const int run = windowed || sum_bytes <= 16 ? kGroupedRun : static_cast<int>(128 / sum_bytes);
  add_tile(op, run, lanes.lanes, facts);
  add_tasks(grouped_activation_block(grouped, lanes, p.dtype, run, windowed).blocks, facts);
}

}  // namespace

Facts plan_facts(Op op, const ConvProblem& problem, Request request, int capability) {
  Plan chosen = plan(op, problem, request, capability);  // refuses what the kernel asked for does not serve
  if (is_empty(problem)) chosen = {Kernel::kReference, "an array without elements"};
  Facts facts = {{"kernel", kernel_name(chosen.kernel)}, {"reason", chosen.reason}};
  const ConvProblem flat = flatten(problem);
  const ConvProblem p = op == Op::kDgrad ? flat.transpose() : flat;
  if (!is_empty(p)) {
    switch (chosen.kernel) {
      case Kernel::kTiled:
        add_product(op, p, {kTileRows, kTileColumns}, op == Op::kWgrad ? wgrad_split(p).parts : 1, facts);
        break;
      case Kernel::kGemm:
        add_gemm(op, p, request.tf32, facts);
        break;
      case Kernel::kWgmma:
        add_wgmma(op, p, facts);
        break;
      case Kernel::kFewChannels:
        add_few_channels(op, p, request.tf32, facts);
        break;
      case Kernel::kGrouped:
        add_grouped(op, p, facts);
        break;
      case Kernel::kReference:
      case Kernel::kAuto:
        break;
    }
  }
  facts.emplace_back("workspace_bytes", conv_workspace_bytes(op, problem, request));
  return facts;
}

Facts plan_facts(const BiasProblem& problem, PoolKernel kernel) {
  const bool reference = kernel == PoolKernel::kReference;
  Facts facts = {{"kernel", reference ? "reference" : "vector"},
                 {"reason", reference ? "asked for" : "rows of dy in vectors of 16 bytes"}};
  if (problem.channels > 0 && reference) {
    facts.emplace_back("partial_sums", reference_bgrad_split(problem).parts);
  } else if (problem.channels > 0) {
    const BgradTiles tiles = bgrad_tiles(problem);
    facts.emplace_back("partial_sums", tiles.split.parts);
    add_tasks(tiles.split.parts * tiles.tiles, facts);
  }
  facts.emplace_back("workspace_bytes", bgrad_workspace_bytes(problem));
  return facts;
}

}  // namespace convgrad::cuda
