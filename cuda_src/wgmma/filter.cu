// Computes a filter's gradient with the tensor memory accelerator (TMA) and wgmma of compute capability 9.0:
//
//     dw[r,c,k] = sum over n, o of x[n,i,c] * dy[n,o,k]    rows (r,c), columns k, depth (n,o)
//
// A chunk of rows is 64 channels of one tap. A tile is two chunks, one for each warpgroup that multiplies.
// One thread starts copies of 64 positions at a time: of x the windows' pixels at the chunk's tap (TMA's
// im2col mode), of dy its rows as stored. Both operands are MN-major, which wgmma accepts for 16-bit numbers.
//
// The depth is split into parts, one tile each; their sums go to the workspace and are added in order.
#include <cstdint>

#include "common_src/integers.h"
#include "common_src/major.h"
#include "cuda_src/arch/encode.h"
#include "cuda_src/arch/launch.cuh"
#include "cuda_src/arch/shared_memory.cuh"
#include "cuda_src/conv_kernels.h"
#include "cuda_src/divisor.cuh"
#include "cuda_src/split.h"
#include "cuda_src/wgmma/dispatch.h"
#include "cuda_src/wgmma/im2col.h"
#include "cuda_src/wgmma/load_windows.cuh"
#include "cuda_src/wgmma/ring.cuh"
#include "cuda_src/wgmma/sum.cuh"

namespace convgrad::cuda {
namespace {

constexpr int kDepth = kWgmmaDepth<BFloat16>;  // positions per slice, for both 16-bit types

struct WgmmaFilter {
  TensorMap x, dy;
  int axes;  // axes of x
  Divisor output[kAxes], column_tiles, row_tiles, groups, channel_chunks;
  int positions, part_length, parts;
  int chunks, group_in, group_out, out_channels;
  int taps[kAxes], start[kAxes], output_step[kAxes], tap_step[kAxes];
};

// 64 rows of the result: a tap, and its channels from c on.
struct FilterChunk {
  int tap, c;
  bool there;

  __device__ FilterChunk(const WgmmaFilter& p, int chunk) : there(chunk < p.chunks) {
    tap = p.channel_chunks.quotient(chunk);
    c = (chunk - tap * p.channel_chunks.value()) * 64;
  }
};

template <typename Stored, int kColumns>
struct WgmmaFilterKernel {
  static constexpr int kChunk = 64 * kDepth;  // elements
  struct Stage {
    Stored x[2][kChunk];
    Stored dy[kColumns * kDepth];
  };
  static constexpr int kStages = 196608 / sizeof(Stage);  // 192 of the 227 KiB that a block may use
  struct Shared {
    Stage stage[kStages];
    RingBarriers<kStages> barriers;
  };
  using Ring = RingPlace<kStages>;

  // The place of a tile, decoded from its number.
  struct Tile {
    int first_column, first_chunk, group, part;
    int begin, slices;  // of the depth

    __device__ Tile(const WgmmaFilter& p, int tile) {
      // Tiles that read the same part of x and dy are neighbours, so that they find it in the cache.
      int rest = p.column_tiles.quotient(tile);
      first_column = (tile - rest * p.column_tiles.value()) * kColumns;
      first_chunk = 2 * p.row_tiles.rest(rest);
      rest = p.row_tiles.quotient(rest);
      group = p.groups.rest(rest);
      part = p.groups.quotient(rest);
      begin = part * p.part_length;
      const int left = p.positions - begin, length = left < p.part_length ? left : p.part_length;
      slices = tiles_over(length, kDepth);
    }
  };

  // Writes dw if `partials` is null, otherwise partials[part,r,c,k].
  __device__ static void run(const WgmmaFilter& p, Stored* dw, float* partials) {
    Shared& shared = *shared_memory<Shared>();
    shared.barriers.init();
    const int tiles = p.column_tiles.value() * p.row_tiles.value() * p.groups.value() * p.parts;
    if (threadIdx.x >= kWgmmaSumThreads) {
      lower_registers<kCopyRegisters>();
      if (threadIdx.x == kWgmmaSumThreads) copy(p, tiles, shared);
    } else {
      raise_registers<kSumRegisters>();
      multiply(p, tiles, shared, dw, partials);
    }
  }

 private:
  __device__ static void copy(const WgmmaFilter& p, int tiles, Shared& shared) {
    Ring place;
    for (int t = static_cast<int>(blockIdx.x); t < tiles; t += static_cast<int>(gridDim.x)) {
      const Tile tile(p, t);
      const FilterChunk chunk[2] = {{p, tile.first_chunk}, {p, tile.first_chunk + 1}};
      int offset[2][kAxes];
#pragma unroll
      for (int j = 0; j < 2; ++j) {
        int tap = chunk[j].tap;
#pragma unroll
        for (int a = kAxes - 1; a >= 0; --a) {
          offset[j][a] = tap % p.taps[a] * p.tap_step[a];
          tap /= p.taps[a];
        }
      }
      const unsigned bytes = sizeof(Stage) - (chunk[1].there ? 0 : sizeof(Stage::x[1]));
      for (int slice = 0; slice < tile.slices; ++slice) {
        const int position = tile.begin + slice * kDepth;
        int n = position, i[kAxes];
#pragma unroll
        for (int a = kAxes - 1; a >= 0; --a) {
          const int rest = p.output[a].quotient(n);
          i[a] = p.start[a] + (n - rest * p.output[a].value()) * p.output_step[a];
          n = rest;
        }
        fill_stage(shared.barriers, place, bytes, [&](int s, uint64_t* full) {
          Stage& stage = shared.stage[s];
#pragma unroll
          for (int j = 0; j < 2; ++j)
            if (chunk[j].there)
              load_windows(stage.x[j], p.x, full, p.axes, tile.group * p.group_in + chunk[j].c, i, n,
                           offset[j]);
#pragma unroll
          for (int k = 0; k < kColumns; k += 64)
            tma_load<2>(stage.dy + k * kDepth, p.dy, full,
                        {tile.group * p.group_out + tile.first_column + k, position});
        });
      }
    }
  }

  __device__ static void multiply(const WgmmaFilter& p, int tiles, Shared& shared, Stored* dw,
                                  float* partials) {
    const int own = static_cast<int>(threadIdx.x) / kWarpgroup;  // this warpgroup's chunk of the tile
    WgmmaSum<Stored, kColumns, Major::kMN, Major::kMN> sum;
    Ring place;
    for (int t = static_cast<int>(blockIdx.x); t < tiles; t += static_cast<int>(gridDim.x)) {
      const Tile tile(p, t);
      const FilterChunk chunk(p, tile.first_chunk + own);
      sum.clear();
      sum_stages(shared.barriers, place, tile.slices, sum,
                 [&](int s) { sum.multiply_add(shared.stage[s].x[own], shared.stage[s].dy); });
      const auto row_at = [&](int row) {
        const int c = chunk.c + row;
        if (!chunk.there || c >= p.group_in) return kNone;
        return (int64_t{chunk.tap} * p.group_in + c) * p.out_channels + tile.group * p.group_out;
      };
      const int64_t count = int64_t{p.taps[0]} * p.taps[1] * p.taps[2] * p.group_in * p.out_channels;
      if (partials != nullptr)
        sum.store(GemmStore<float, true, decltype(row_at)>{partials + tile.part * count, row_at,
                                                           tile.first_column, p.group_out});
      else
        sum.store(GemmStore<Stored, true, decltype(row_at)>{dw, row_at, tile.first_column, p.group_out});
    }
  }
};

template <typename Stored, int kColumns>
__global__ void __launch_bounds__(kWgmmaThreads, 1)
    wgmma_filter_kernel(const __grid_constant__ WgmmaFilter p, Stored* dw, float* partials) {
  WgmmaFilterKernel<Stored, kColumns>::run(p, dw, partials);
}

// Describes dy, [N, outputs..., K], as a matrix of positions by channels.
TiledMap dy_map(const ConvProblem& p, const void* dy) {
  TiledMap map = {};
  map.array.dtype = p.dtype;
  map.array.base = dy;
  map.array.rank = 2;
  map.array.size[0] = p.out_channels;
  map.array.size[1] = p.batch * p.outputs();
  map.array.stride_bytes[1] = p.out_channels * bytes_of(p.dtype);
  map.box[0] = 64;
  map.box[1] = kDepth;
  return map;
}

cudaError_t parameters_of(const ConvProblem& p, Split split, int columns, const void* x, const void* dy,
                          WgmmaFilter* out) {
  *out = {};
  WindowAxis window[kAxes];
  for (int a = 0; a < kAxes; ++a) {
    window[a] = window_axis(p.axis[a], phase_of(p.axis[a], 0));
    out->output[a] = Divisor(window[a].outputs);
    out->taps[a] = static_cast<int>(window[a].taps);
    out->start[a] = static_cast<int>(window[a].start);
    out->output_step[a] = static_cast<int>(window[a].output_step);
    out->tap_step[a] = static_cast<int>(window[a].tap_step);
  }
  out->axes = spatial_axes(p);
  out->chunks = static_cast<int>(wgmma_filter_chunks(p));
  out->row_tiles = Divisor(tiles_over(out->chunks, 2));
  out->column_tiles = Divisor(tiles_over(p.group_out(), columns));
  out->groups = Divisor(p.groups);
  out->channel_chunks = Divisor(tiles_over(p.group_in(), 64));
  out->positions = static_cast<int>(p.batch * p.outputs());
  out->part_length = static_cast<int>(split.length);
  out->parts = static_cast<int>(split.parts);
  out->group_in = static_cast<int>(p.group_in());
  out->group_out = static_cast<int>(p.group_out());
  out->out_channels = static_cast<int>(p.out_channels);
  if (const cudaError_t error =
          encode(im2col_map(window, out->axes, p.dtype, x, p.batch, p.in_channels, kDepth), &out->x))
    return error;
  return encode(dy_map(p, dy), &out->dy);
}

}  // namespace

cudaError_t wgmma_wgrad(const ConvProblem& p, const void* x, const void* dy, void* dw, void* workspace,
                        cudaStream_t stream) {
  const Split split = wgmma_filter_split(p);
  float* partials = static_cast<float*>(partials_of(p, split.parts, dw, workspace));
  const auto launch = [&](auto stored, auto columns) {
    using Stored = decltype(stored);
    constexpr int kColumns = decltype(columns)::value;
    WgmmaFilter parameters;
    if (const cudaError_t error = parameters_of(p, split, kColumns, x, dy, &parameters)) return error;
    const int64_t tiles = int64_t{parameters.column_tiles.value()} * parameters.row_tiles.value() *
                          parameters.groups.value() * parameters.parts;
    return launch_persistent(wgmma_filter_kernel<Stored, kColumns>, tiles, kWgmmaThreads,
                             sizeof(typename WgmmaFilterKernel<Stored, kColumns>::Shared), stream, parameters,
                             static_cast<Stored*>(dw), partials);
  };
  const int64_t row_tiles = tiles_over(wgmma_filter_chunks(p), 2) * p.groups * split.parts;
  const cudaError_t error = dispatch_columns(wgmma_columns(row_tiles, p.group_out()), [&](auto columns) {
    return p.dtype == DType::kBF16 ? launch(BFloat16{}, columns) : launch(Float16{}, columns);
  });
  if (error != cudaSuccess || split.parts == 1) return error;
  return add_parts(p.result_dtype(), partials, dw, split.parts, p.taps() * p.group_in() * p.out_channels,
                   stream);
}

}  // namespace convgrad::cuda
