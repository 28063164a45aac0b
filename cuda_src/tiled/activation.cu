// Computes an activation as an implicit matrix product in tiles of shared memory:
//
//     y[n,o,k] = sum over r, c of x[n,i,c] * w[r,c,k]      rows (n,o), columns k, depth q = (r,c)
//
// x is gathered by the relation as its tile is filled; no unrolled copy of it is ever in memory. A block
// computes rows of one phase (common_src/phase.h), so that no zero between dilated inputs is multiplied.
// dgrad is the same product over the transposed problem, with the filter's taps flipped and its two channel
// axes swapped:
//
//     dx[n,i,c] = sum over r, k of dy[n,o,k] * w[R-1-r,c,k]
//
// The kernel is written in fprop's letters; the parameter `Filter` makes the difference.
#include "common_src/dispatch.h"
#include "common_src/major.h"
#include "cuda_src/arch/launch.cuh"
#include "cuda_src/arch/shared_memory.cuh"
#include "cuda_src/block/activation.cuh"
#include "cuda_src/conv_kernels.h"
#include "cuda_src/tiled/tile.cuh"

namespace convgrad::cuda {
namespace {

// The place of element (q,k) = (r,c,k) of one group's filter in memory, for fprop. Neighbouring threads fill
// along the contiguous index.
struct FilterMNMajor {
  static constexpr Major kMajor = Major::kMN;
  __device__ static int64_t at(const ConvProblem& p, int64_t group, int64_t q, int64_t k) {
    return q * p.out_channels + group * p.group_out() + k;
  }
};

// The same for dgrad, in the letters of the transposed problem: its c is the stored filter's k, and its k the
// stored c.
struct FilterKMajor {
  static constexpr Major kMajor = Major::kK;
  __device__ static int64_t at(const ConvProblem& p, int64_t group, int64_t q, int64_t k) {
    const int64_t r = q / p.group_in(), c = q % p.group_in();
    const int64_t stored_r = p.taps() - 1 - r;
    return (stored_r * p.group_out() + k) * p.in_channels + group * p.group_in() + c;
  }
};

// A row's window: its start along each axis, relative to the inputs, and its output in y, (n,o) flat.
struct WindowStart {
  int64_t image, output;  // kNone for a row past the end
  int64_t at[kAxes];
};

// Returns the flat index (n,i) of the input tied to the tap that is `steps` from a window's start, or kNone.
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

__device__ WindowStart window_start(const ConvProblem& p, const ActivationBlock& block, int row) {
  WindowStart start = {kNone, kNone, {0, 0, 0}};
  if (block.first_row + row >= block.rows) return start;
  const Coord o = block.coord(block.first_row + row);
  start.image = o.n;
  start.output = block.output_at(p, o);
#pragma unroll
  for (int a = 0; a < kAxes; ++a) start.at[a] = block.phase[a].start(o.at[a]);
  return start;
}

template <typename Stored, typename Filter>
__global__ void __launch_bounds__(kTileThreads)
    tiled_activation_kernel(ConvProblem p, ActivationPhases phases, const Stored* x, const Stored* w,
                            Epilogue epilogue, Stored* y) {
  using Value = Sum<Stored>;
  // In shared memory, because it would fill the registers of every thread.
  ActivationBlock& block = *shared_memory<ActivationBlock>();
  WindowStart* window = reinterpret_cast<WindowStart*>(&block + 1);  // of each row
  Value* a = reinterpret_cast<Value*>(window + kTileRows);           // x as a[q, row]
  Value* b = a + kTileElements<Value>;                               // w as b[q, column]
  const int thread = static_cast<int>(threadIdx.x);
  const int64_t C = p.group_in(), K = p.group_out();
  if (thread == 0) block = ActivationBlock(p, phases, kTileRows, kTileColumns);
  __syncthreads();
  if (block.first_row >= block.rows) return;  // a phase with fewer rows than the largest; all threads leave
  const PhaseAxis(&phase)[kAxes] = block.phase;
  const int64_t group = block.group, first_column = block.first_column;
  const int64_t depth = phase[0].taps * phase[1].taps * phase[2].taps * C;

  if (thread < kTileRows) window[thread] = window_start(p, block, thread);
  __syncthreads();

  // This thread fills depth `a_depth` of four rows of a. Their inputs change only with the tap.
  const int a_depth = thread % kTileDepth, a_row = thread / kTileDepth;
  int64_t x_at[kFills];
  int64_t tap = kNone;
  const auto tap_at = [&](int64_t tap) { return coord_of(tap, phase[0].taps, phase[1].taps, phase[2].taps); };
  // Maps depth q of the phase to depth q of the whole filter, which is often the same.
  const bool whole =
      phase[0].taps == p.axis[0].taps && phase[1].taps == p.axis[1].taps && phase[2].taps == p.axis[2].taps;
  const auto in_filter = [&](int64_t q) {
    if (whole) return q;
    const Coord r = tap_at(q / C);
    int64_t flat = 0;
#pragma unroll
    for (int axis = 0; axis < kAxes; ++axis)
      flat = flat * p.axis[axis].taps + phase[axis].r_first + r.at[axis] * phase[axis].r_step;
    return flat * C + q % C;
  };

  TileSum<Value> sum;
  for (int64_t slice = 0; slice < depth; slice += kTileDepth) {
    const int64_t a_q = slice + a_depth;
    if (a_q < depth && a_q / C != tap) {
      tap = a_q / C;
      const Coord r = tap_at(tap);
      int64_t steps[kAxes];
#pragma unroll
      for (int axis = 0; axis < kAxes; ++axis) steps[axis] = r.at[axis] * phase[axis].tap_step;
#pragma unroll
      for (int j = 0; j < kFills; ++j) x_at[j] = tied_input(p, window[a_row + j * kTileSide], steps);
    }
    const int64_t channel = group * C + a_q % C;
#pragma unroll
    for (int j = 0; j < kFills; ++j) {
      const bool tied = a_q < depth && x_at[j] != kNone;
      a[a_depth * kPitch<Value> + a_row + j * kTileSide] =
          tied ? widen(x[x_at[j] * p.in_channels + channel]) : Value{0};
    }
#pragma unroll
    for (int j = 0; j < kFills; ++j) {
      const int fill = thread + j * kTileThreads;
      const int b_depth = Filter::kMajor == Major::kK ? fill % kTileDepth : fill / kTileColumns;
      const int b_column = Filter::kMajor == Major::kK ? fill / kTileDepth : fill % kTileColumns;
      const int64_t q = slice + b_depth, k = first_column + b_column;
      b[b_depth * kPitch<Value> + b_column] =
          q < depth && k < K ? widen(w[Filter::at(p, group, in_filter(q), k)]) : Value{0};
    }
    __syncthreads();
    sum.multiply_add(a, b);
    __syncthreads();
  }

  sum.finish([&](int row, int column, Value y_nok) {
    const int64_t no = window[row].output, k = first_column + column;
    if (no != kNone && k < K)
      store_sum(y, no * p.out_channels + group * K + k, epilogue.finish_channel<Stored>(y_nok, group * K + k),
                p.unrounded);
  });
}

template <typename Filter>
cudaError_t tiled_activation(const ConvProblem& p, const void* x, const void* w, Epilogue epilogue, void* y,
                             cudaStream_t stream) {
  const ActivationPhases phases(p);
  if (!phases.phases.covers()) {
    const cudaError_t error = empty_sums(p, epilogue, y, stream);
    if (error != cudaSuccess) return error;
  }
  return dispatch(p.dtype, [&](auto tag) {
    using Stored = typename decltype(tag)::type;
    const size_t shared_bytes = sizeof(ActivationBlock) + kTileRows * sizeof(WindowStart) +
                                2 * kTileElements<Sum<Stored>> * sizeof(Sum<Stored>);
    return launch_blocks(tiled_activation_kernel<Stored, Filter>, phases.blocks(p, kTileRows, kTileColumns),
                         kTileThreads, shared_bytes, stream, p, phases, static_cast<const Stored*>(x),
                         static_cast<const Stored*>(w), epilogue, static_cast<Stored*>(y));
  });
}

}  // namespace

cudaError_t tiled_fprop(const ConvProblem& p, const void* x, const void* w, Epilogue epilogue, void* y,
                        cudaStream_t stream) {
  return tiled_activation<FilterMNMajor>(p, x, w, epilogue, y, stream);
}

cudaError_t tiled_dgrad(const ConvProblem& p, const void* dy, const void* w, void* dx, cudaStream_t stream) {
  return tiled_activation<FilterKMajor>(p.transpose(), dy, w, dgrad_epilogue(p), dx, stream);
}

}  // namespace convgrad::cuda
