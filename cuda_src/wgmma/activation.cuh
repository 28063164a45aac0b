// Computes an activation with the tensor memory accelerator (TMA) and wgmma of compute capability 9.0:
//
//     y[n,o,k] = sum over r, c of x[n,i,c] * w[r,c,k]      rows (n,o), columns k, depth (r,c)
//
// One thread starts all copies. TMA's im2col mode gathers x: one instruction copies the pixels of 128 windows
// at a tap, 128 bytes of channels each, and fills the padding with zeros. Two warpgroups multiply 64 rows
// each by all of the tile's columns (wgmma), reading shared memory directly. A block is persistent and loops
// over tiles, so that the copies for the next tile run while this tile's sums are stored.
//
// Rows belong to one phase (common_src/phase.h), so a strided dgrad multiplies no zero. dgrad is the same
// product over the transposed problem, with the filter K-major and its taps reversed.
#pragma once

#include <cstdint>

#include "common_src/integers.h"
#include "common_src/major.h"
#include "cuda_src/arch/launch.cuh"
#include "cuda_src/arch/shared_memory.cuh"
#include "cuda_src/wgmma/activation.h"
#include "cuda_src/wgmma/dispatch.h"
#include "cuda_src/wgmma/load_windows.cuh"
#include "cuda_src/wgmma/ring.cuh"
#include "cuda_src/wgmma/sum.cuh"

namespace convgrad::cuda {

template <typename Stored, int kColumns, Major kFilter>
struct WgmmaActivationKernel {
  static constexpr int kDepth = kWgmmaDepth<Stored>;
  struct Stage {
    Stored x[kWgmmaRows * kDepth];
    Stored filter[kColumns * kDepth];
  };
  static constexpr int kStages = 196608 / sizeof(Stage);  // 192 of the 227 KiB that a block may use
  struct Shared {
    Stage stage[kStages];
    RingBarriers<kStages> barriers;
  };
  using Ring = RingPlace<kStages>;

  // The place of a tile, decoded from its number.
  struct Tile {
    const WgmmaPhase& phase;
    int group, first_row, first_column;

    __device__ static Tile of(const WgmmaActivation& p, int tile) {
      // Tiles that read the same rows of x are neighbours, so that they find them in the cache.
      const int rest = p.column_tiles.quotient(tile), column = tile - rest * p.column_tiles.value();
      const int row_tile = p.groups.quotient(rest), group = rest - row_tile * p.groups.value();
      int f = 0;
      while (f + 1 < p.phases && row_tile >= p.phase[f + 1].first_tile) ++f;
      return {p.phase[f], group, (row_tile - p.phase[f].first_tile) * kWgmmaRows, column * kColumns};
    }
    __device__ int taps() const { return phase.taps[0] * phase.taps[1] * phase.taps[2]; }
  };

  __device__ static void run(const WgmmaActivation& p, const Epilogue& epilogue, Stored* y) {
    Shared& shared = *shared_memory<Shared>();
    shared.barriers.init();
    const int tiles = p.row_tiles * p.groups.value() * p.column_tiles.value();
    if (threadIdx.x >= kWgmmaSumThreads) {
      lower_registers<kCopyRegisters>();
      if (threadIdx.x == kWgmmaSumThreads) copy(p, tiles, shared);
    } else {
      raise_registers<kSumRegisters>();
      multiply(p, tiles, shared, epilogue, y);
    }
  }

 private:
  __device__ static void copy(const WgmmaActivation& p, int tiles, Shared& shared) {
    Ring place;
    for (int t = static_cast<int>(blockIdx.x); t < tiles; t += static_cast<int>(gridDim.x)) {
      const Tile tile = Tile::of(p, t);
      const WgmmaPhase& phase = tile.phase;
      // The first row's window.
      int n = tile.first_row, i[kAxes];
#pragma unroll
      for (int a = kAxes - 1; a >= 0; --a) {
        const int rest = phase.outputs[a].quotient(n);
        i[a] = phase.start[a] + (n - rest * phase.outputs[a].value()) * phase.output_step[a];
        n = rest;
      }
      int r[kAxes];
      for (r[0] = 0; r[0] < phase.taps[0]; ++r[0])
        for (r[1] = 0; r[1] < phase.taps[1]; ++r[1])
          for (r[2] = 0; r[2] < phase.taps[2]; ++r[2]) copy_tap(p, tile, r, i, n, place, shared);
    }
  }

  __device__ static void copy_tap(const WgmmaActivation& p, const Tile& tile, const int (&r)[kAxes],
                                  const int (&i)[kAxes], int n, Ring& place, Shared& shared) {
    const WgmmaPhase& phase = tile.phase;
    int offset[kAxes], tap = 0;
#pragma unroll
    for (int a = 0; a < kAxes; ++a) {
      offset[a] = r[a] * phase.tap_step[a];
      tap = tap * p.filter_taps[a] + phase.r_first[a] + r[a] * phase.r_step[a];
    }
    if (p.flipped) tap = p.all_taps - 1 - tap;
    const int filter_depth = tile.group * p.filter_group_depth;
    const int filter_column = tile.group * p.filter_group_columns + tile.first_column;
    for (int c = 0; c < p.group_in; c += kDepth)
      fill_stage(shared.barriers, place, sizeof(Stage), [&](int s, uint64_t* full) {
        Stage& stage = shared.stage[s];
        load_windows(stage.x, phase.x, full, p.axes, tile.group * p.group_in + c, i, n, offset);
        if constexpr (kFilter == Major::kK) {
          tma_load<3>(stage.filter, p.filter, full, {filter_depth + c, filter_column, tap});
        } else {
#pragma unroll
          for (int k = 0; k < kColumns; k += 64)
            tma_load<3>(stage.filter + k * kDepth, p.filter, full,
                        {filter_column + k, filter_depth + c, tap});
        }
      });
  }

  __device__ static void multiply(const WgmmaActivation& p, int tiles, Shared& shared,
                                  const Epilogue& epilogue, Stored* y) {
    const int half = static_cast<int>(threadIdx.x) / kWarpgroup * 64;  // this warpgroup's first row
    const int slices = tiles_over(p.group_in, kDepth);                 // of a tap
    WgmmaSum<Stored, kColumns, Major::kK, kFilter> sum;
    Ring place;
    for (int t = static_cast<int>(blockIdx.x); t < tiles; t += static_cast<int>(gridDim.x)) {
      const Tile tile = Tile::of(p, t);
      sum.clear();
      sum_stages(shared.barriers, place, tile.taps() * slices, sum,
                 [&](int s) { sum.multiply_add(shared.stage[s].x + half * kDepth, shared.stage[s].filter); });
      const int row = tile.first_row + half + sum.first_row();
      const int64_t first = y_at(p, tile, row), second = y_at(p, tile, row + 8);
      const auto row_at = [&](int row) { return row & 8 ? second : first; };
      sum.store(GemmStore<Stored, true, decltype(row_at)>{y, row_at, tile.first_column, p.group_out, epilogue,
                                                          int64_t{tile.group} * p.group_out});
    }
  }

  // Returns the place in y where the group's channels of a row of the phase begin, or kNone past its end.
  __device__ static int64_t y_at(const WgmmaActivation& p, const Tile& tile, int row) {
    const WgmmaPhase& phase = tile.phase;
    if (row >= phase.rows) return kNone;
    int o[kAxes];
#pragma unroll
    for (int a = kAxes - 1; a >= 0; --a) {
      const int rest = phase.outputs[a].quotient(row);
      o[a] = phase.o_first[a] + (row - rest * phase.outputs[a].value()) * phase.o_step[a];
      row = rest;
    }
    int64_t at = row;
#pragma unroll
    for (int a = 0; a < kAxes; ++a) at = at * p.output[a] + o[a];
    return at * p.out_channels + tile.group * p.group_out;
  }
};

template <typename Stored, int kColumns, Major kFilter>
__global__ void __launch_bounds__(kWgmmaThreads, 1)
    wgmma_activation_kernel(const __grid_constant__ WgmmaActivation p, Epilogue epilogue, Stored* y) {
  WgmmaActivationKernel<Stored, kColumns, kFilter>::run(p, epilogue, y);
}

// Computes y of a problem that wgmma_serves(), from arrays aligned to 16 bytes.
template <typename Stored, Major kFilter>
cudaError_t launch_wgmma_activation(const ConvProblem& p, bool flipped, const void* x, const void* w,
                                    Epilogue epilogue, void* y, cudaStream_t stream) {
  const auto launch = [&](auto columns) {
    constexpr int kColumns = decltype(columns)::value;
    using Kernel = WgmmaActivationKernel<Stored, kColumns, kFilter>;
    WgmmaActivation parameters;
    if (const cudaError_t error = wgmma_activation_of(p, {kFilter, flipped}, kColumns, x, w, &parameters))
      return error;
    const int64_t tiles =
        int64_t{parameters.row_tiles} * parameters.groups.value() * parameters.column_tiles.value();
    return launch_persistent(wgmma_activation_kernel<Stored, kColumns, kFilter>, tiles, kWgmmaThreads,
                             sizeof(typename Kernel::Shared), stream, parameters, epilogue,
                             static_cast<Stored*>(y));
  };
  const int64_t row_tiles = tiles_over(p.batch * p.outputs(), kWgmmaRows) * p.groups;
  return dispatch_columns(wgmma_columns(row_tiles, p.group_out()), launch);
}

}  // namespace convgrad::cuda
