// Computes an activation from few input channels:
//
//     y[n,o,k] = sum over r, c of x[n,i,c] * w[r,c,k]
//
// A block copies the filter to shared memory once and loops over tiles of positions. A tile's patch of x is a
// few rows, each contiguous in memory; its chunks are copied as they are while the tile before is multiplied,
// and the overlapping windows are read out of it number by number. So x and the filter are read about once,
// and y, most of the traffic, is written once.
//
// dgrad is the same sum over the transposed problem, with the filter's taps flipped and its channel axes
// swapped.
#pragma once

#include "common_src/integers.h"
#include "common_src/major.h"
#include "cuda_src/arch/launch.cuh"
#include "cuda_src/arch/shared_memory.cuh"
#include "cuda_src/block/pipeline.cuh"
#include "cuda_src/conv_kernels.h"
#include "cuda_src/few_channels/activation_fma.cuh"
#include "cuda_src/few_channels/activation_sums.cuh"

namespace convgrad::cuda {

// The parameters of a launch, besides the problem.
struct FewChannelsWork {
  Major filter_major;  // K-major for dgrad: stored as [r, k, c], its taps flipped
  int block_tiles;
  int column_tiles;
  int filter_numbers, slots;  // in shared memory
};

template <Math kMath, int kColumns, bool kPaired, bool kWide>
struct FewChannelsActivation {
  using Stored = typename MathTypes<kMath>::Stored;
  static constexpr int kStages = few_channels_stages(kStoredDType<Stored>, false);
  static constexpr int kPositions = few_channels_positions(kStoredDType<Stored>, false);

  __device__ static void run(const FewChannelsProblem& p, const FewChannelsWork& work, const Stored* x,
                             const Stored* w, const Epilogue& epilogue, Stored* y) {
    Stored* filter = shared_memory<Stored>();
    Stored* patches = filter + work.filter_numbers;
    FewChannelsTables tables;
    const int patch_numbers = static_cast<int>(p.patch_numbers());
    tables.place = reinterpret_cast<PairPlace*>(patches + kStages * patch_numbers);
    tables.depth = reinterpret_cast<int*>(tables.place + work.slots / 2);
    int64_t* rows = reinterpret_cast<int64_t*>(tables.depth + work.slots);

    const int first_column = static_cast<int>(blockIdx.x) % work.column_tiles * kColumns;
    const int64_t first_tile = static_cast<int64_t>(blockIdx.x) / work.column_tiles * work.block_tiles;
    const int tiles =
        static_cast<int>(first_tile + work.block_tiles < p.tiles ? work.block_tiles : p.tiles - first_tile);

    FewChannelsSum<kMath, kColumns, kPaired> sum;
    sum.prepare(p, tables, filter, [&](int depth, int column) {
      const int k = first_column + column;
      if (depth < 0 || k >= p.out_channels) return Stored{};
      return w[filter_at(p, work, depth, k)];
    });
    sum.find_windows(p);

    int next = static_cast<int>(first_tile), tile = next;
    run_pipeline<kStages>(
        tiles,
        [&](int stage) { copy_patch(p, FewChannelsTile(p, next++), x, patches + stage * patch_numbers); },
        [&](int stage) {
          find_rows(p, FewChannelsTile(p, tile++), rows);
          sum.multiply_add(p, patches + stage * patch_numbers, tables, filter);
          const auto row_at = [&](int row) { return rows[row]; };
          sum.store(
              GemmStore<Stored, kWide, decltype(row_at)>{y, row_at, first_column, p.out_channels, epilogue});
        });
  }

 private:
  // Finds where the rows of a tile are in y, or kNone. Each warp finds the rows that it stores.
  __device__ static void find_rows(const FewChannelsProblem& p, const FewChannelsTile& tile, int64_t* rows) {
    constexpr int kWarpRows = kPositions / (kFewChannelsThreads / 32);
    const int warp = static_cast<int>(threadIdx.x) / 32, lane = static_cast<int>(threadIdx.x) % 32;
#pragma unroll
    for (int row = warp * kWarpRows + lane; row < (warp + 1) * kWarpRows; row += 32) {
      const int64_t position = tile.position(p, row);
      rows[row] = position == kNone ? kNone : position * p.out_channels;
    }
    __syncwarp();
  }

  __device__ static int64_t filter_at(const FewChannelsProblem& p, const FewChannelsWork& work, int depth,
                                      int k) {
    if (work.filter_major == Major::kMN) return static_cast<int64_t>(depth) * p.out_channels + k;
    const int tap = depth / p.channels, c = depth % p.channels, taps = p.depth / p.channels;
    return (static_cast<int64_t>(taps - 1 - tap) * p.out_channels + k) * p.channels + c;
  }
};

template <Math kMath, int kColumns, bool kPaired, bool kWide>
__global__ void __launch_bounds__(kFewChannelsThreads, 2)
    few_channels_activation_kernel(FewChannelsProblem p, FewChannelsWork work,
                                   const typename MathTypes<kMath>::Stored* x,
                                   const typename MathTypes<kMath>::Stored* w, Epilogue epilogue,
                                   typename MathTypes<kMath>::Stored* y) {
  FewChannelsActivation<kMath, kColumns, kPaired, kWide>::run(p, work, x, w, epilogue, y);
}

template <Math kMath, int kColumns, bool kPaired, bool kWide>
cudaError_t launch_few_channels_activation(const ConvProblem& problem, Major filter_major, const void* x,
                                           const void* w, Epilogue epilogue, void* y, cudaStream_t stream) {
  using Stored = typename MathTypes<kMath>::Stored;
  using Kernel = FewChannelsActivation<kMath, kColumns, kPaired, kWide>;
  const FewChannelsProblem p(few_channels_plan(problem, false), x, sizeof(Stored));
  FewChannelsWork work;
  work.filter_major = filter_major;
  work.block_tiles = few_channels_block_tiles(problem, p);
  work.column_tiles = static_cast<int>(tiles_over(p.out_channels, kColumns));
  work.slots = static_cast<int>(tiles_over(p.octets, 2)) * 16;
  work.filter_numbers = work.slots * kColumns;
  const size_t shared_bytes = sizeof(Stored) * (work.filter_numbers + Kernel::kStages * p.patch_numbers()) +
                              work.slots * (sizeof(PairPlace) / 2 + sizeof(int)) +
                              Kernel::kPositions * sizeof(int64_t);
  const int64_t blocks = tiles_over(p.tiles, work.block_tiles) * work.column_tiles;
  return launch_blocks(few_channels_activation_kernel<kMath, kColumns, kPaired, kWide>, blocks,
                       kFewChannelsThreads, shared_bytes, stream, p, work, static_cast<const Stored*>(x),
                       static_cast<const Stored*>(w), epilogue, static_cast<Stored*>(y));
}

}  // namespace convgrad::cuda
