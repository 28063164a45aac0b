// Computes the bias gradient db[c] = sum over rows of dy[row,c] with 16-byte vectors, in two steps (plan.h
// defines how dy is cut).
//
// A block adds a tile of columns over one part of dy's lines: each thread adds the vectors at one place of
// its lines, eight loads in flight at a time, then the block reduces its threads' sums in shared memory by
// halving. The resulting lines, one per part, are the rows of a second, short sum of the same kind. If dy is
// not aligned, the same numbers are read one by one and added in the same order.
#include "common_src/dispatch.h"
#include "cuda_src/arch/launch.cuh"
#include "cuda_src/arch/shared_memory.cuh"
#include "cuda_src/bias/plan.h"
#include "cuda_src/lanes.cuh"
#include "cuda_src/pool_kernels.h"

namespace convgrad::cuda {
namespace {

constexpr int kAhead = 8;  // vectors of a thread in flight together
constexpr int kRun = 8;    // a run of the sum has kRun * kAhead terms, which keeps its rounding error small

template <int kLanes, bool kAligned, typename Stored>
__device__ __forceinline__ Lanes<Stored, kLanes> load_vector(const Stored* from) {
  if constexpr (kAligned) {
    return load<kLanes>(from);
  } else {
    Lanes<Stored, kLanes> lanes;
#pragma unroll
    for (int l = 0; l < kLanes; ++l) lanes.lane[l] = from[l];
    return lanes;
  }
}

template <typename Stored, typename Result, int kLanes, bool kAligned>
__global__ void __launch_bounds__(kBgradThreads, room_for(0, 2))
    vector_bgrad_kernel(BgradTiles t, int64_t count, const Stored* dy, Result* sums) {
  using Value = Sum<Stored>;
  const int thread = static_cast<int>(threadIdx.x);
  const int64_t part = blockIdx.x / t.tiles, tile = blockIdx.x % t.tiles;
  const int column = thread % t.columns, line = thread / t.columns;
  const int64_t place = (tile * t.columns + column) * kLanes;  // in every line

  auto total = all_lanes<kLanes>(Value{0});
  if (line < t.at_once && place < t.line) {
    const int64_t first = part * t.split.length, stop = first + t.split.length;
    const int64_t end = stop < t.lines ? stop : t.lines;
    int64_t at = first + line;
    const Stored* from = dy + at * t.line + place;
    const int64_t step = t.at_once * t.line;
    while (at < end) {
      auto run = all_lanes<kLanes>(Value{0});
      for (int k = 0; k < kRun && at < end; ++k) {
        Lanes<Stored, kLanes> ahead[kAhead];
#pragma unroll
        for (int a = 0; a < kAhead; ++a) {
          // Past the end 0 is added, which does not change a sum that began with 0.
          ahead[a] = at + a * t.at_once < end ? load_vector<kLanes, kAligned>(from + a * step)
                                              : all_lanes<kLanes>(narrow<Stored>(0));
        }
#pragma unroll
        for (int a = 0; a < kAhead; ++a) {
#pragma unroll
          for (int l = 0; l < kLanes; ++l) run.lane[l] += widen(ahead[a].lane[l]);
        }
        at += kAhead * t.at_once;
        from += kAhead * step;
      }
#pragma unroll
      for (int l = 0; l < kLanes; ++l) total.lane[l] += run.lane[l];
    }
    // The last rows, which do not fill a line.
    if (stop >= t.lines && line == 0) {
#pragma unroll
      for (int l = 0; l < kLanes; ++l) {
        const int64_t last = t.lines * t.line + place + l;
        if (last < count) total.lane[l] += widen(dy[last]);
      }
    }
  }

  Value* line_sums = shared_memory<Value>();  // [at_once, columns * kLanes]
  const int numbers = t.columns * kLanes;
  if (line < t.at_once) {
#pragma unroll
    for (int l = 0; l < kLanes; ++l) line_sums[thread * kLanes + l] = total.lane[l];
  }
  __syncthreads();
  for (int lines = t.at_once; lines > 1;) {
    const int half = (lines + 1) / 2;
    for (int e = thread; e < (lines - half) * numbers; e += kBgradThreads)
      line_sums[e] += line_sums[e + half * numbers];
    __syncthreads();
    lines = half;
  }
  for (int e = thread; e < numbers; e += kBgradThreads) {
    const int64_t number = tile * numbers + e;
    if (number < t.line) sums[part * t.line + number] = narrow<Result>(line_sums[e]);
  }
}

template <typename Stored, typename Result, int kLanes, bool kAligned>
cudaError_t launch(const BgradTiles& t, int64_t rows, const Stored* dy, Result* sums, cudaStream_t stream) {
  const size_t shared_bytes = sizeof(Sum<Stored>) * t.at_once * t.columns * kLanes;
  return launch_blocks(vector_bgrad_kernel<Stored, Result, kLanes, kAligned>, t.split.parts * t.tiles,
                       kBgradThreads, shared_bytes, stream, t, rows * (t.line / t.fold), dy, sums);
}

template <typename Stored, typename Result>
cudaError_t first_step(const BiasProblem& p, const BgradTiles& t, const Stored* dy, Result* sums,
                       cudaStream_t stream) {
  constexpr int kLanes = kVectorBytes / sizeof(Stored);
  if (is_aligned(dy, kVectorBytes)) return launch<Stored, Result, kLanes, true>(t, p.rows, dy, sums, stream);
  return launch<Stored, Result, kLanes, false>(t, p.rows, dy, sums, stream);
}

}  // namespace

cudaError_t vector_bgrad(const BiasProblem& p, const void* dy_data, void* db_data, void* workspace,
                         cudaStream_t stream) {
  return dispatch(p.dtype, [&](auto tag) {
    using Stored = typename decltype(tag)::type;
    const auto* dy = static_cast<const Stored*>(dy_data);
    auto* db = static_cast<Stored*>(db_data);
    const BgradTiles tiles = bgrad_tiles(p);
    if (tiles.in_one_step()) return first_step(p, tiles, dy, db, stream);
    auto* parts = static_cast<Sum<Stored>*>(workspace);
    const cudaError_t error = first_step(p, tiles, dy, parts, stream);
    if (error != cudaSuccess) return error;
    return launch<Sum<Stored>, Stored, 1, true>(bgrad_tiles_of_parts(p), tiles.split.parts * tiles.fold,
                                                parts, db, stream);
  });
}

}  // namespace convgrad::cuda
