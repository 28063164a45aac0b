// Computes a filter's gradient as an implicit matrix product in tiles of shared memory:
//
//     dw[r,c,k] = sum over n, o of x[n,i,c] * dy[n,o,k]    rows (r,c), columns k, depth q = (n,o)
//
// A filter has few elements and a batch has many positions, so the depth is split into parts, one block each;
// the parts' sums go to the workspace and are added in order. A block computes rows of one phase
// (common_src/phase.h) over the positions that these meet.
#include "common_src/dispatch.h"
#include "cuda_src/arch/launch.cuh"
#include "cuda_src/arch/shared_memory.cuh"
#include "cuda_src/block/filter.cuh"
#include "cuda_src/conv_kernels.h"
#include "cuda_src/split.h"
#include "cuda_src/tiled/tile.cuh"

namespace convgrad::cuda {
namespace {

// A position: its image, or kNone past the end; the start of its window along each axis, relative to the
// inputs; and where to read dy.
struct WindowStart {
  int64_t image, dy_at;
  int64_t at[kAxes];
};

__device__ WindowStart window_start(const ConvProblem& p, const FilterBlock& block, int64_t position) {
  WindowStart start = {kNone, 0, {0, 0, 0}};
  if (position >= block.end) return start;
  const Coord o = block.coord(p, position);
  start.image = start.dy_at = o.n;
#pragma unroll
  for (int a = 0; a < kAxes; ++a) {
    const PhaseAxis& phase = block.phase[a];
    start.at[a] = phase.start(o.at[a]);
    start.dy_at = start.dy_at * p.axis[a].output + phase.o_first + o.at[a] * phase.o_step;
  }
  return start;
}

// Returns the flat index (n,i) of the input tied to the position by the tap that is `steps` from the window's
// start, or kNone.
__device__ int64_t tied_input(const ConvProblem& p, const WindowStart& start, const int64_t (&steps)[kAxes]) {
  if (start.image == kNone) return kNone;
  int64_t flat = start.image;
#pragma unroll
  for (int a = 0; a < kAxes; ++a) {
    const int64_t i = start.at[a] + steps[a];
    if (i < 0 || i >= p.axis[a].input) return kNone;
    flat = flat * p.axis[a].input + i;
  }
  return flat;
}

// Writes dw if `partials` is null, otherwise partials[part,r,c,k].
template <typename Stored>
__global__ void __launch_bounds__(kTileThreads)
    tiled_filter_kernel(ConvProblem p, Phases phases, Split split, const Stored* x, const Stored* dy,
                        Stored* dw, Sum<Stored>* partials) {
  using Value = Sum<Stored>;
  // In shared memory, because it would fill the registers of every thread.
  FilterBlock& block = *shared_memory<FilterBlock>();
  WindowStart* window = reinterpret_cast<WindowStart*>(&block + 1);  // of each q in the slice
  Value* a = reinterpret_cast<Value*>(window + kTileDepth);          // x as a[q, row]
  Value* b = a + kTileElements<Value>;                               // dy as b[q, column]
  const int thread = static_cast<int>(threadIdx.x);
  const int64_t C = p.group_in(), K = p.group_out();
  if (thread == 0) block = FilterBlock(p, phases, split, kTileRows, kTileColumns, kTileDepth);
  __syncthreads();
  if (block.first_row >= block.rows) return;  // a phase with fewer rows than the largest; all threads leave
  const int64_t group = block.group, begin = block.begin, end = block.end;

  // This thread fills one row (r,c) of a, at four depths, and one column k of b.
  const int fill_row = thread % kTileRows, fill_depth = thread / kTileRows;
  const int64_t a_row = block.first_row + fill_row;
  const Coord r = block.tap_of(p, a_row);
  int64_t steps[kAxes];
#pragma unroll
  for (int axis = 0; axis < kAxes; ++axis) steps[axis] = r.at[axis] * block.phase[axis].tap_step;
  const int64_t channel = group * C + a_row % C;
  const int64_t k = block.first_column + fill_row;

  if (thread < kTileDepth) window[thread] = window_start(p, block, begin + thread);
  __syncthreads();

  TileSum<Value> sum;
  for (int64_t slice = begin; slice < end; slice += kTileDepth) {
#pragma unroll
    for (int j = 0; j < kFills; ++j) {
      const int q = fill_depth + j * (kTileDepth / kFills);
      const int64_t x_at = a_row < block.rows ? tied_input(p, window[q], steps) : kNone;
      a[q * kPitch<Value> + fill_row] = x_at != kNone ? widen(x[x_at * p.in_channels + channel]) : Value{0};
      b[q * kPitch<Value> + fill_row] =
          slice + q < end && k < K ? widen(dy[window[q].dy_at * p.out_channels + group * K + k]) : Value{0};
    }
    __syncthreads();
    // Every thread is done with this slice's windows.
    if (thread < kTileDepth) window[thread] = window_start(p, block, slice + kTileDepth + thread);
    sum.multiply_add(a, b);
    __syncthreads();
  }

  sum.finish([&](int tile_row, int tile_column, Value dw_rck) {
    const int64_t row = block.first_row + tile_row, column = block.first_column + tile_column;
    if (row >= block.rows || column >= K) return;
    const int64_t at = block.row_in_filter(p, row) * p.out_channels + group * K + column;
    if (partials != nullptr)
      partials[block.part * p.taps() * C * p.out_channels + at] = dw_rck;
    else
      dw[at] = narrow<Stored>(dw_rck);
  });
}

}  // namespace

cudaError_t tiled_wgrad(const ConvProblem& p, const void* x, const void* dy, void* dw, void* workspace,
                        cudaStream_t stream) {
  const Split split = wgrad_split(p);
  const Phases phases(p, ResultIs::kTaps);
  void* partials = partials_of(p, split.parts, dw, workspace);
  if (!phases.covers()) {
    const cudaError_t error = clear_filter(p, split, dw, partials, stream);
    if (error != cudaSuccess) return error;
  }
  const cudaError_t error = dispatch(p.dtype, [&](auto tag) {
    using Stored = typename decltype(tag)::type;
    const size_t shared_bytes = sizeof(FilterBlock) + kTileDepth * sizeof(WindowStart) +
                                2 * kTileElements<Sum<Stored>> * sizeof(Sum<Stored>);
    return launch_blocks(
        tiled_filter_kernel<Stored>, filter_blocks(p, phases, split, kTileRows, kTileColumns), kTileThreads,
        shared_bytes, stream, p, phases, split, static_cast<const Stored*>(x), static_cast<const Stored*>(dy),
        static_cast<Stored*>(dw), static_cast<Sum<Stored>*>(partials));
  });
  if (error != cudaSuccess || split.parts == 1) return error;
  return add_parts(p.result_dtype(), workspace, dw, split.parts, p.taps() * p.group_in() * p.out_channels,
                   stream);
}

}  // namespace convgrad::cuda
