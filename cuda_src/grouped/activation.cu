// Computes y[n,o,k] = sum over r, c of x[n,i,c] * w[r,c,k] for small groups on the FMA units. Such a layer
// has so few products per number that memory traffic is its time, so each number should be moved once.
//
// Threads are neighbours along channels. Each keeps a few channels of a short run of results along the last
// axis in registers; every source that it reads meets all results of the run that are tied to it (the window
// slides over the run). Rows share their sources through the cache, because a block's results are about as
// high as wide.
//
// dgrad is the same sum over the transposed problem, with the taps flipped and the filter's channels swapped:
//
//     dx[n,i,c] = sum over r, k of dy[n,o,k] * w[R-1-r,c,k]
//
// Its strides are input dilations here. A result meets only the taps that are tied to some source, so no zero
// between the strides is multiplied.
#include "common_src/dispatch.h"
#include "common_src/major.h"
#include "cuda_src/arch/launch.cuh"
#include "cuda_src/conv_kernels.h"
#include "cuda_src/grouped/grouped.cuh"

namespace convgrad::cuda {
namespace {

// The place of a thread's results.
struct Mine {
  int k;
  unsigned run;
  unsigned row;
};

__device__ bool find_mine(const GroupedProblem& p, int lanes, Mine& mine) {
  unsigned block = blockIdx.x;
  const unsigned panel = block % p.panels;
  block /= p.panels;
  mine.k = static_cast<int>(panel * blockDim.x + threadIdx.x) * lanes;
  mine.run = block % p.run_blocks * blockDim.y + threadIdx.y;
  mine.row = block / p.run_blocks * blockDim.z + threadIdx.z;
  return mine.k < p.out_channels && mine.run < p.runs && mine.row < static_cast<unsigned>(p.rows);
}

// Extends room_for() by a number for compute capability 12.0.
constexpr int window_blocks(int blocks_on_sm100, int blocks_on_sm120) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ == 1200
  return static_cast<void>(blocks_on_sm100), blocks_on_sm120;
#else
  return static_cast<void>(blocks_on_sm120), room_for(0, blocks_on_sm100);
#endif
}

template <typename Stored, int kTaps, int kStride, int kInputDilation>
constexpr int kWindowBlocks = window_blocks(kInputDilation != 1                                 ? 0
                                            : sizeof(Stored) == 4 && kTaps == 3 && kStride == 1 ? 2
                                            : kTaps > 3 && kStride == 2                         ? 1
                                                                                                : 0,
                                            kInputDilation != 1                                 ? 0
                                            : sizeof(Stored) == 4 && kTaps == 3                 ? 2
                                            : sizeof(Stored) == 4 && kTaps == 7 && kStride == 1 ? 1
                                            : sizeof(Stored) == 2 && kTaps == 3 && kStride == 1 ? 1
                                                                                                : 0);

// Depthwise, kTaps neighbouring taps along the last axis. Results and window are aligned so that the compiler
// knows which pairs of them are tied.
template <typename Stored, int kTaps, int kStride, int kInputDilation>
__global__ void __launch_bounds__(kGroupedThreads, kWindowBlocks<Stored, kTaps, kStride, kInputDilation>)
    grouped_window_kernel(GroupedProblem p, bool flipped, const Stored* __restrict__ x,
                          const Stored* __restrict__ w, Epilogue epilogue, Stored* __restrict__ y) {
  using Value = Sum<Stored>;
  constexpr int kLanes = kVectorLanes<Stored>, kRun = kGroupedRun;
  constexpr int kWindow = ((kRun - 1) * kStride + kTaps - 1) / kInputDilation + 1;
  static_assert(kRun % kInputDilation == 0 && (kStride == 1 || kInputDilation == 1));
  Mine mine;
  if (!find_mine(p, kLanes, mine)) return;
  const GroupedAxis& axis = p.axis[kAxes - 1];
  const GroupedRow row = grouped_row(p, mine.row);
  const int o = static_cast<int>(mine.run) * kRun - p.shift;
  const int i = (o * kStride - axis.pad_lo) / kInputDilation;  // exact
  const int64_t K = p.out_channels;

  Value y_o[kRun][kLanes] = {};
  for_each_source_row(p, row, [&](int row_of_taps, int64_t row_of_x) {
    Value w_r[kTaps][kLanes];
#pragma unroll
    for (int r = 0; r < kTaps; ++r) {
      const int tap = row_of_taps * kTaps + r;
      const int stored = flipped ? p.axis[0].taps * p.axis[1].taps * kTaps - 1 - tap : tap;
      load_lanes(w + stored * K + mine.k, w_r[r]);
    }
    const Stored* x_row = x + row_of_x * axis.input * K + mine.k;
#pragma unroll
    for (int j = 0; j < kWindow; ++j) {
      Value x_i[kLanes];
      load_lanes_if(is_inside(i + j, axis.input), x_row, (i + j) * K, x_i);
#pragma unroll
      for (int m = 0; m < kRun; ++m) {
        const int r = j * kInputDilation - m * kStride;
        if (r < 0 || r >= kTaps) continue;
#pragma unroll
        for (int l = 0; l < kLanes; ++l) y_o[m][l] += x_i[l] * w_r[r][l];
      }
    }
  });

  const int64_t y_row = static_cast<int64_t>(mine.row) * axis.output * K + mine.k;
#pragma unroll
  for (int m = 0; m < kRun; ++m) {
    if (!is_inside(o + m, axis.output)) continue;
    finish_lanes<Stored>(epilogue, mine.k, y_o[m]);
    store_lanes(y_o[m], y, y_row + (o + m) * K, epilogue.unrounded);
  }
}

// The place of w[r,c,k] for a thread's channel k, in fprop's letters; dgrad uses the transposed problem,
// whose c is the stored filter's k.
struct FilterWalk {
  int64_t first;   // r = 0, c = 0
  int64_t tap;     // from r to r + 1
  int64_t source;  // from c to c + 1
  int64_t result;  // from k to k + 1, within a group
};

__device__ FilterWalk filter_walk(const GroupedProblem& p, Major filter_major, int k) {
  const int64_t C = p.group_in, K = p.out_channels;
  if (filter_major == Major::kMN) return {k, C * K, K, 1};
  const int64_t stored_K = p.in_channels, stored_C = p.group_out;
  const int64_t last = p.axis[0].taps * p.axis[1].taps * static_cast<int64_t>(p.axis[2].taps) - 1;
  return {(last * stored_C + k % p.group_out) * stored_K + k / p.group_out * C, -stored_C * stored_K, 1,
          stored_K};
}

// Serves any steps and taps. The run belongs to a single phase, whose results all meet the same taps. kGroup
// is GroupedLanes::group. kFilter tells along which index groups of several channels read vectors of the
// filter: along k in fprop, along c in dgrad seen as fprop.
template <typename Stored, int kLanes, int kGroup, Major kFilter>
__global__ void __launch_bounds__(kGroupedThreads,
                                  kLanes == 8 ? 1 : room_for(2, sizeof(Stored) == 8 && kLanes == 4 ? 1 : 2))
    grouped_run_kernel(GroupedProblem p, Major filter_major, const Stored* __restrict__ x,
                       const Stored* __restrict__ w, Epilogue epilogue, Stored* __restrict__ y) {
  using Value = Sum<Stored>;
  constexpr int kRun = kRunOf<Stored, kLanes>;
  static_assert(kGroup == 1 || kGroup == kLanes || (kGroup == 0 && kLanes == 1));
  Mine mine;
  if (!find_mine(p, kLanes, mine)) return;
  const GroupedAxis& axis = p.axis[kAxes - 1];
  const GroupedRow row = grouped_row(p, mine.row);
  const int phase = static_cast<int>(mine.run % axis.phases);
  const int first = static_cast<int>(mine.run / axis.phases) * kRun;
  FirstTap first2 = first_tap(axis, phase);
  first2.source += first * axis.source_step;
  first2 = skip_padding(axis, first2, (min(kRun, axis.output) - 1) * axis.source_step);
  const FilterWalk walk = filter_walk(p, filter_major, mine.k);
  const int64_t C = p.in_channels, K = p.out_channels;
  const int channel = kGroup == 0 ? mine.k / p.group_out * p.group_in : mine.k;

  Value y_o[kRun][kLanes] = {};
  for_each_source_row(p, row, [&](int row_of_taps, int64_t row_of_x) {
    const Stored* x_row = x + row_of_x * axis.input * C + channel;
    for (int r = first2.r, i = first2.source; r < axis.taps && i < axis.input;
         r += axis.tap_step, i += axis.tap_source_step) {
      const Stored* w_r = w + walk.first + (row_of_taps * axis.taps + r) * walk.tap;
      const auto source = [&](int m, Value(&x_i)[kLanes], int c) {
        const int at = i + m * axis.source_step;
        load_lanes_if(is_inside(at, axis.input), x_row, at * C + c, x_i);
      };
      if constexpr (kGroup == 0) {
#pragma unroll 1
        for (int c = 0; c < p.group_in; ++c) {
          const Value w_rck = widen(w_r[c * walk.source]);
#pragma unroll
          for (int m = 0; m < kRun; ++m) {
            Value x_ic[1];
            source(m, x_ic, c);
            y_o[m][0] += x_ic[0] * w_rck;
          }
        }
      } else {
        Value x_i[kRun][kLanes];
#pragma unroll
        for (int m = 0; m < kRun; ++m) source(m, x_i[m], 0);
#pragma unroll
        for (int v = 0; v < kGroup; ++v) {
          Value w_v[kLanes];
          load_lanes(w_r + v * (kFilter == Major::kK ? walk.result : walk.source), w_v);
#pragma unroll
          for (int m = 0; m < kRun; ++m) {
#pragma unroll
            for (int l = 0; l < kLanes; ++l) {
              if constexpr (kGroup == 1)
                y_o[m][l] += x_i[m][l] * w_v[l];
              else if constexpr (kFilter == Major::kK)
                y_o[m][v] += x_i[m][l] * w_v[l];
              else
                y_o[m][l] += x_i[m][v] * w_v[l];
            }
          }
        }
      }
    }
  });

  const int64_t y_row = static_cast<int64_t>(mine.row) * axis.output * K + mine.k;
#pragma unroll
  for (int m = 0; m < kRun; ++m) {
    const int64_t o = phase + static_cast<int64_t>(first + m) * axis.phases;
    if (o >= axis.output) continue;
    finish_lanes<Stored>(epilogue, mine.k, y_o[m]);
    store_lanes(y_o[m], y, y_row + o * K, epilogue.unrounded);
  }
}

// Launches one problem in its dtype.
template <typename Stored>
struct Launch {
  const ConvProblem& problem;
  Major filter_major;
  const Stored *x, *w;
  Epilogue epilogue;
  Stored* y;
  cudaStream_t stream;

  template <int kTaps, int kStride, int kInputDilation>
  cudaError_t window() const {
    GroupedProblem p = grouped_problem(problem);
    const GroupedBlock block =
        grouped_activation_block(p, {kVectorLanes<Stored>, 1}, problem.dtype, kGroupedRun, true);
    return launch_blocks(grouped_window_kernel<Stored, kTaps, kStride, kInputDilation>, block.blocks,
                         dim3(block.x, block.y, block.z), 0, stream, p, filter_major == Major::kK, x, w,
                         epilogue, y);
  }

  template <int kLanes, int kGroup>
  cudaError_t run() const {
    GroupedProblem p = grouped_problem(problem);
    const GroupedBlock block =
        grouped_activation_block(p, {kLanes, kGroup}, problem.dtype, kRunOf<Stored, kLanes>, false);
    constexpr Major kSeveral = kGroup > 1 ? Major::kK : Major::kMN;
    return launch_blocks(filter_major == kSeveral ? grouped_run_kernel<Stored, kLanes, kGroup, kSeveral>
                                                  : grouped_run_kernel<Stored, kLanes, kGroup, Major::kMN>,
                         block.blocks, dim3(block.x, block.y, block.z), 0, stream, p, filter_major, x, w,
                         epilogue, y);
  }

  // Runs depthwise layers in vectors, with a compiled window or the general kernel.
  cudaError_t depthwise() const {
    const GroupedProblem p = grouped_problem(problem);
    if (is_windowed(p, 3, 1, 1)) return window<3, 1, 1>();
    if (is_windowed(p, 3, 2, 1)) return window<3, 2, 1>();
    if (is_windowed(p, 3, 1, 2)) return window<3, 1, 2>();
    if constexpr (sizeof(Stored) < 8) {  // more kernels for f64 would be code for very few users
      if (is_windowed(p, 5, 1, 1)) return window<5, 1, 1>();
      if (is_windowed(p, 5, 2, 1)) return window<5, 2, 1>();
      if (is_windowed(p, 5, 1, 2)) return window<5, 1, 2>();
      if (is_windowed(p, 7, 1, 1)) return window<7, 1, 1>();
      if (is_windowed(p, 7, 2, 1)) return window<7, 2, 1>();
      if (is_windowed(p, 7, 1, 2)) return window<7, 1, 2>();
    }
    return run<kVectorLanes<Stored>, 1>();
  }
};

cudaError_t grouped_activation(const ConvProblem& problem, Major filter_major, const void* x, const void* w,
                               Epilogue epilogue, void* y, cudaStream_t stream) {
  // One lane serves every problem, with the same sums term by term.
  const bool aligned = is_aligned(x) && is_aligned(w) && is_aligned(epilogue.bias) && is_aligned(y);
  const int group = aligned ? grouped_lanes(problem).group : 0;
  return dispatch(problem.dtype, [&](auto tag) {
    using Stored = typename decltype(tag)::type;
    const Launch<Stored> launch{problem,
                                filter_major,
                                static_cast<const Stored*>(x),
                                static_cast<const Stored*>(w),
                                epilogue,
                                static_cast<Stored*>(y),
                                stream};
    if (group == 1) return launch.depthwise();
    if (group == 4) return launch.template run<4, 4>();
    if constexpr (sizeof(Stored) < 8)
      if (group == 8) return launch.template run<8, 8>();
    return launch.template run<1, 0>();
  });
}

}  // namespace

cudaError_t grouped_fprop(const ConvProblem& p, const void* x, const void* w, Epilogue epilogue, void* y,
                          cudaStream_t stream) {
  return grouped_activation(p, Major::kMN, x, w, epilogue, y, stream);
}

cudaError_t grouped_dgrad(const ConvProblem& p, const void* dy, const void* w, void* dx,
                          cudaStream_t stream) {
  return grouped_activation(p.transpose(), Major::kK, dy, w, dgrad_epilogue(p), dx, stream);
}

}  // namespace convgrad::cuda
