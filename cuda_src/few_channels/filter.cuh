// Computes a filter's gradient for few input channels:
//
//     dw[r,c,k] = sum over n, o of x[n,i,c] * dy[n,o,k]    rows (r,c), columns k
//
// A block keeps all rows of the filter in registers, so that dy, most of the traffic, is read once. Tile by
// tile it copies positions of dy and the patch of x that they are tied to into shared memory, the next tile
// while one is multiplied. Each warp has 32 rows. If there are fewer rows than warps, warps also divide the
// tile's positions, and their sums are added in order at the end. Positions are split into parts, one block
// each, whose sums go to the workspace and are added in order.
#pragma once

#include "common_src/integers.h"
#include "common_src/major.h"
#include "cuda_src/arch/launch.cuh"
#include "cuda_src/arch/shared_memory.cuh"
#include "cuda_src/block/pipeline.cuh"
#include "cuda_src/conv_kernels.h"
#include "cuda_src/few_channels/filter_fma.cuh"
#include "cuda_src/few_channels/filter_sums.cuh"

namespace convgrad::cuda {

// Divides the filter's gradient among blocks and their warps.
struct FewChannelsFilterWork {
  FewChannelsSplit split;
  int column_tiles, row_tiles;
  int row_warps, position_warps;  // per block
};

template <Math kMath, int kColumns, bool kPaired, bool kWide>
struct FewChannelsFilter {
  using Stored = typename MathTypes<kMath>::Stored;
  using Value = typename MathTypes<kMath>::Value;
  using Tile = OperandTile<Stored, kColumns, Major::kMN>;  // of dy; a line is a position
  using TileSum = FewChannelsFilterSum<kMath, kColumns, kPaired>;
  static constexpr int kPositions = few_channels_positions(kStoredDType<Stored>, true);
  static constexpr int kStages = few_channels_stages(kStoredDType<Stored>, true);
  static constexpr int kDyNumbers = kPositions * kColumns;

  __host__ __device__ static int stage_numbers(const FewChannelsProblem& p) {
    return kDyNumbers + static_cast<int>(p.patch_numbers());
  }
  static size_t shared_bytes(const FewChannelsProblem& p, const FewChannelsFilterWork& work) {
    const size_t stages = sizeof(Stored) * kStages * stage_numbers(p);
    const size_t sums = work.position_warps == 1 ? 0 : sizeof(Value) * TileSum::kValues * 32 * work.row_warps;
    return (stages > sums ? stages : sums) + kPositions / 8 * sizeof(int);
  }

  // Writes dw if `partials` is null, otherwise partials[part,r,c,k].
  __device__ static void run(const FewChannelsProblem& p, const FewChannelsFilterWork& work, int windows_at,
                             const Stored* x, const Stored* dy, Stored* dw, Value* partials) {
    Stored* stages = shared_memory<Stored>();
    int* windows = reinterpret_cast<int*>(shared_memory<unsigned char>() + windows_at);
    const int thread = static_cast<int>(threadIdx.x), warp = thread / 32;
    for (int octet = thread; octet < kPositions / 8; octet += static_cast<int>(blockDim.x))
      windows[octet] = window_at(p, octet * 8);

    int block = static_cast<int>(blockIdx.x);
    const int first_column = block % work.column_tiles * kColumns;
    block /= work.column_tiles;
    const int row_warp = block % work.row_tiles * work.row_warps + warp % work.row_warps;
    const int position_warp = warp / work.row_warps, part = block / work.row_tiles;
    const int first_tile = part * work.split.length;
    const int tiles = first_tile >= p.tiles                      ? 0
                      : p.tiles - first_tile < work.split.length ? p.tiles - first_tile
                                                                 : work.split.length;
    TileSum sum;
    sum.find_slots(p, row_warp * kFewChannelsWarpRows);
    int next = first_tile;
    run_pipeline<kStages>(
        tiles,
        [&](int stage) {
          const FewChannelsTile tile(p, next++);
          Stored* to = stages + stage * stage_numbers(p);
          copy_dy(p, tile, first_column, dy, to);
          copy_patch(p, tile, x, to + kDyNumbers);
        },
        [&](int stage) {
          const Stored* from = stages + stage * stage_numbers(p);
          sum.multiply_add(p, from + kDyNumbers, from, windows, position_warp, work.position_warps,
                           kPositions);
          sum.end_tile();
        });
    sum.end();
    add_position_warps(work, warp % work.row_warps, position_warp, sum);
    if (position_warp != 0) return;

    const auto row_at = [&](int row) {
      const int depth = slot_at<kPaired>(p, row_warp * kFewChannelsWarpRows + row).depth;
      return depth < 0 ? kNone : static_cast<int64_t>(depth) * p.out_channels;
    };
    if (partials != nullptr)
      sum.store(GemmStore<Value, kWide, decltype(row_at)>{
          partials + static_cast<int64_t>(part) * p.depth * p.out_channels, row_at, first_column,
          p.out_channels});
    else
      sum.store(GemmStore<Stored, kWide, decltype(row_at)>{dw, row_at, first_column, p.out_channels});
  }

 private:
  __device__ static void copy_dy(const FewChannelsProblem& p, const FewChannelsTile& tile, int first_column,
                                 const Stored* dy, Stored* to) {
    constexpr int kNumbers = kWide ? kChunk<Stored> : 1, kLine = kColumns / kNumbers;
    for (int at = static_cast<int>(threadIdx.x); at < kPositions * kLine;
         at += static_cast<int>(blockDim.x)) {
      const int line = at / kLine, k = first_column + at % kLine * kNumbers;
      const int64_t position = tile.position(p, line);
      const bool there = position != kNone && k < p.out_channels;
      const Stored* from = there ? dy + position * p.out_channels + k : dy;
      if constexpr (kWide)
        cp_async<16>(to + Tile::chunk(line, at % kLine), from, there);
      else
        to[Tile::element(at % kLine, line)] = there ? *from : Stored{};
    }
  }

  // Adds to the sums of position warp 0 those of the other warps that have the same rows, warp by warp.
  __device__ static void add_position_warps(const FewChannelsFilterWork& work, int row_warp,
                                            int position_warp, TileSum& sum) {
    Value* values = shared_memory<Value>() + row_warp * TileSum::kValues * 32 + threadIdx.x % 32;
    for (int other = 1; other < work.position_warps; ++other) {
      if (position_warp == other) sum.for_each_value([&](int v, Value& value) { values[v * 32] = value; });
      __syncthreads();
      if (position_warp == 0) sum.for_each_value([&](int v, Value& value) { value += values[v * 32]; });
      __syncthreads();
    }
  }
};

template <Math kMath, int kColumns, bool kPaired, bool kWide>
__global__ void __launch_bounds__(kFewChannelsWarps * 32, 1)
    few_channels_filter_kernel(FewChannelsProblem p, FewChannelsFilterWork work, int windows_at,
                               const typename MathTypes<kMath>::Stored* x,
                               const typename MathTypes<kMath>::Stored* dy,
                               typename MathTypes<kMath>::Stored* dw,
                               typename MathTypes<kMath>::Value* partials) {
  FewChannelsFilter<kMath, kColumns, kPaired, kWide>::run(p, work, windows_at, x, dy, dw, partials);
}

template <Math kMath, int kColumns, bool kPaired, bool kWide>
cudaError_t launch_few_channels_filter(const ConvProblem& problem, FewChannelsSplit split, const void* x,
                                       const void* dy, void* dw, void* partials, cudaStream_t stream) {
  using Stored = typename MathTypes<kMath>::Stored;
  using Kernel = FewChannelsFilter<kMath, kColumns, kPaired, kWide>;
  const FewChannelsProblem p(few_channels_plan(problem, true), x, sizeof(Stored));
  FewChannelsFilterWork work;
  work.split = split;
  const int64_t slots = kPaired ? p.octets * 8 : p.depth, warps = tiles_over(slots, kFewChannelsWarpRows);
  work.column_tiles = static_cast<int>(tiles_over(p.out_channels, kColumns));
  work.row_tiles = static_cast<int>(tiles_over(warps, kFewChannelsWarps));
  work.row_warps = static_cast<int>(tiles_over(warps, work.row_tiles));
  work.position_warps = kFewChannelsWarps / work.row_warps;
  const size_t shared_bytes = Kernel::shared_bytes(p, work);
  const int64_t blocks = static_cast<int64_t>(work.column_tiles) * work.row_tiles * split.parts;
  return launch_blocks(few_channels_filter_kernel<kMath, kColumns, kPaired, kWide>, blocks,
                       work.row_warps * work.position_warps * 32, shared_bytes, stream, p, work,
                       static_cast<int>(shared_bytes - Kernel::kPositions / 8 * sizeof(int)),
                       static_cast<const Stored*>(x), static_cast<const Stored*>(dy),
                       static_cast<Stored*>(dw), static_cast<typename Kernel::Value*>(partials));
}

}  // namespace convgrad::cuda
