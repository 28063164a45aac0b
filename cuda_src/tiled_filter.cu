// The contraction whose result is a filter, as an implicit matrix product in tiles of shared memory:
//
//     dw[r,c,k] = sum over n, o of x[n,i,c] * dy[n,o,k]    rows (r,c), columns k, depth q = (n,o)
//
// A filter has few elements and a batch has many positions, so the depth is split into parts, each a block's
// own; the parts' sums go to the workspace and are added in order.
#include "cuda_src/conv_kernels.h"
#include "cuda_src/launch.cuh"
#include "cuda_src/shared_memory.cuh"
#include "cuda_src/split.h"
#include "cuda_src/tile.cuh"
#include "ffi_src/dispatch.h"

namespace convgrad::cuda {
namespace {

// Writes dw where `partials` is null, and else partials[part,r,c,k].
template <typename Stored>
__global__ void __launch_bounds__(kTileThreads)
    tiled_filter_kernel(ConvProblem p, Split split, const Stored* x, const Stored* dy, Stored* dw,
                        Sum<Stored>* partials) {
  using Value = Sum<Stored>;
  WindowStart* window = shared_memory<WindowStart>();        // of each q in the slice
  Value* a = reinterpret_cast<Value*>(window + kTileDepth);  // x as a[q, row]
  Value* b = a + kTileElements<Value>;                       // dy as b[q, column]
  const int thread = static_cast<int>(threadIdx.x);
  const int64_t C = p.group_in(), K = p.group_out();
  const int64_t rows = p.taps() * C;
  const int64_t depth = p.batch * p.outputs();

  // Blocks that read the same part of x and dy are neighbours, so that they find it in the cache.
  const int64_t column_tiles = tiles_over(K, kTileColumns), row_tiles = tiles_over(rows, kTileRows);
  int64_t block = blockIdx.x;
  const int64_t first_column = block % column_tiles * kTileColumns;
  block /= column_tiles;
  const int64_t first_row = block % row_tiles * kTileRows;
  block /= row_tiles;
  const int64_t group = block % p.groups;
  const int64_t part = block / p.groups;
  const int64_t begin = part * split.length;
  const int64_t end = begin + split.length < depth ? begin + split.length : depth;

  // This thread fills one row (r,c) of a, at four depths, and one column k of b.
  const int fill_row = thread % kTileRows, fill_depth = thread / kTileRows;
  const int64_t a_row = first_row + fill_row;
  const Place r = tap_place(p.axis, a_row / C);
  const int64_t channel = group * C + a_row % C;
  const int64_t k = first_column + fill_row;

  if (thread < kTileDepth) window[thread] = window_start(p.axis, begin + thread, end);
  __syncthreads();

  TileSum<Value> sum;
  for (int64_t slice = begin; slice < end; slice += kTileDepth) {
#pragma unroll
    for (int j = 0; j < kFills; ++j) {
      const int q = fill_depth + j * (kTileDepth / kFills);
      const int64_t x_at = a_row < rows ? tied_input(p.axis, window[q], r.at) : kNone;
      a[q * kPitch<Value> + fill_row] = x_at != kNone ? widen(x[x_at * p.in_channels + channel]) : Value{0};
      b[q * kPitch<Value> + fill_row] =
          slice + q < end && k < K ? widen(dy[(slice + q) * p.out_channels + group * K + k]) : Value{0};
    }
    __syncthreads();
    // Every thread is done with this slice's windows.
    if (thread < kTileDepth) window[thread] = window_start(p.axis, slice + kTileDepth + thread, end);
    sum.multiply_add(a, b);
    __syncthreads();
  }

  sum.finish([&](int tile_row, int tile_column, Value dw_rck) {
    const int64_t rc = first_row + tile_row, column = first_column + tile_column;
    if (rc >= rows || column >= K) return;
    const int64_t at = rc * p.out_channels + group * K + column;
    if (partials != nullptr)
      partials[part * rows * p.out_channels + at] = dw_rck;
    else
      dw[at] = narrow<Stored>(dw_rck);
  });
}

}  // namespace

cudaError_t tiled_wgrad(const ConvProblem& p, const void* x, const void* dy, void* dw, void* workspace,
                        cudaStream_t stream) {
  const Split split = wgrad_split(p);
  const int64_t rows = p.taps() * p.group_in();
  const int64_t blocks =
      tiles_over(rows, kTileRows) * tiles_over(p.group_out(), kTileColumns) * p.groups * split.parts;
  const cudaError_t error = dispatch(p.dtype, [&](auto tag) {
    using Stored = typename decltype(tag)::type;
    const size_t shared_bytes =
        kTileDepth * sizeof(WindowStart) + 2 * kTileElements<Sum<Stored>> * sizeof(Sum<Stored>);
    return launch_blocks(tiled_filter_kernel<Stored>, blocks, kTileThreads, shared_bytes, stream, p, split,
                         static_cast<const Stored*>(x), static_cast<const Stored*>(dy),
                         static_cast<Stored*>(dw),
                         static_cast<Sum<Stored>*>(partials_of(p, split.parts, dw, workspace)));
  });
  if (error != cudaSuccess || split.parts == 1) return error;
  return add_parts(p.result_dtype(), workspace, dw, split.parts, rows * p.out_channels, stream);
}

}  // namespace convgrad::cuda
