// Computes dw[r,c,k] = sum over n, o of x[n,i,c] * dy[n,o,k] for small groups: a thread keeps the sums of a
// few channels k and a piece of the taps in registers while it walks over positions.
//
// A block's threads are neighbours along channels (x), have one piece of the filter each (y), and are slots
// (z) among which the positions of the block's part are dealt out in runs of a row. So all pieces read the
// same rows at about the same time, and x and dy come from memory once. The slots' sums are added in order
// through shared memory; the parts' sums go to the workspace and add_parts adds them in order.
//
// With dilated inputs a tap meets an input only at every so many positions, so a piece then holds taps of one
// phase.
#include "common_src/dispatch.h"
#include "cuda_src/arch/launch.cuh"
#include "cuda_src/conv_kernels.h"
#include "cuda_src/grouped/filter_sums.cuh"
#include "cuda_src/split.h"

namespace convgrad::cuda {
namespace {

// Depthwise, kTaps neighbouring taps along the last axis; a piece is all of them in kRows rows of taps. The
// run's dy is in registers, and each x that is read meets all of the run that it is tied to.
template <typename Stored, int kTaps, int kStride, int kRows>
__global__ void __launch_bounds__(kGroupedThreads, kTaps* kRows < 7 ? room_for(2, kTaps == 5 ? 1 : 2) : 1)
    grouped_filter_window_kernel(GroupedProblem p, GroupedFilterSplit split, const Stored* __restrict__ x,
                                 const Stored* __restrict__ dy, Result<Stored> result) {
  using Value = Sum<Stored>;
  constexpr int kLanes = kVectorLanes<Stored>, kRun = kGroupedRun;
  constexpr int kWindow = (kRun - 1) * kStride + kTaps;
  const GroupedAxis &axis0 = p.axis[0], &axis1 = p.axis[1], &axis = p.axis[kAxes - 1];
  const Mine mine = find_mine(p, split, kLanes, threadIdx.x, threadIdx.y);
  const int64_t K = p.out_channels;
  const int rows_of_taps = axis0.taps * axis1.taps, first_row = mine.piece * kRows;

  Value dw_r[kRows][kTaps * kLanes] = {};
  if (mine.k < p.out_channels && first_row < rows_of_taps) {
    for_each_run(p, split, mine.part, [&](unsigned row, int o) {
      const GroupedRow at = grouped_row(p, row);
      const int i = o * kStride - axis.pad_lo;
      const Stored* dy_row = dy + static_cast<int64_t>(row) * axis.output * K + mine.k;
      Value dy_o[kRun][kLanes];
#pragma unroll
      for (int m = 0; m < kRun; ++m) load_lanes_if(o + m < axis.output, dy_row, (o + m) * K, dy_o[m]);
      // Nothing of x beyond this is tied to the row.
      const int last = (axis.output - 1) * kStride - axis.pad_lo + kTaps;
      const int end = last < axis.input ? last : axis.input;
#pragma unroll
      for (int q = 0; q < kRows; ++q) {
        const int r0 = (first_row + q) / axis1.taps, r1 = (first_row + q) % axis1.taps;
        const int i0 = tied_source(axis0, at.o0, r0), i1 = tied_source(axis1, at.o1, r1);
        if (first_row + q >= rows_of_taps || i0 < 0 || i1 < 0) continue;
        const Stored* x_row =
            x + ((static_cast<int64_t>(at.n) * axis0.input + i0) * axis1.input + i1) * axis.input * K +
            mine.k;
#pragma unroll
        for (int j = 0; j < kWindow; ++j) {
          Value x_i[kLanes];
          load_lanes_if(i + j >= 0 && i + j < end, x_row, (i + j) * K, x_i);
#pragma unroll
          for (int m = 0; m < kRun; ++m) {
            const int r = j - m * kStride;
            if (r < 0 || r >= kTaps) continue;
#pragma unroll
            for (int l = 0; l < kLanes; ++l) dw_r[q][r * kLanes + l] += x_i[l] * dy_o[m][l];
          }
        }
      }
    });
  }

#pragma unroll
  for (int q = 0; q < kRows; ++q) {
    add_slots(dw_r[q], [&](unsigned x, unsigned y, int v, Value sum) {
      const Mine owner = find_mine(p, split, kLanes, x, y);
      const int row_of_taps = owner.piece * kRows + q, r = v / kLanes;
      if (owner.k >= p.out_channels || row_of_taps >= rows_of_taps) return;
      result.store(owner.part, rows_of_taps * kTaps * K, (row_of_taps * kTaps + r) * K + owner.k + v % kLanes,
                   sum);
    });
  }
}

// Serves any steps and taps: a piece is any kTaps consecutive taps. With kGroup 0 (see GroupedLanes) a tap is
// a pair of r and c.
template <typename Stored, int kLanes, int kGroup, int kTaps>
__global__ void __launch_bounds__(kGroupedThreads, 2)
    grouped_filter_run_kernel(GroupedProblem p, GroupedFilterSplit split, const Stored* __restrict__ x,
                              const Stored* __restrict__ dy, Result<Stored> result) {
  using Value = Sum<Stored>;
  constexpr int kSources = kGroup == kLanes ? kLanes : 1;  // the channels c that each k meets
  const GroupedAxis &axis0 = p.axis[0], &axis1 = p.axis[1], &axis = p.axis[kAxes - 1];
  const Mine mine = find_mine(p, split, kLanes, threadIdx.x, threadIdx.y);
  const int64_t C = p.in_channels, K = p.out_channels;
  const int per_tap = kGroup == 0 ? p.group_in : 1;
  const int taps = axis0.taps * axis1.taps * axis.taps * per_tap;
  const int first = mine.piece * kTaps;

  int r0[kTaps], r1[kTaps], at_r2[kTaps], channel[kTaps];
#pragma unroll
  for (int t = 0; t < kTaps; ++t) {
    const int r = (first + t) / per_tap;
    at_r2[t] = r % axis.taps * axis.filter_dilation - axis.pad_lo;
    r1[t] = r / axis.taps % axis1.taps;
    r0[t] = r / axis.taps / axis1.taps;
    channel[t] = kGroup == 0 ? mine.k / p.group_out * p.group_in + (first + t) % per_tap : mine.k;
  }

  Value dw_r[kTaps][kSources][kLanes] = {};
  if (mine.k < p.out_channels && first < taps) {
    for_each_run(p, split, mine.part, [&](unsigned row, int o) {
      const GroupedRow at = grouped_row(p, row);
      const Stored* x_row[kTaps];
#pragma unroll
      for (int t = 0; t < kTaps; ++t) {
        const int i0 = tied_source(axis0, at.o0, r0[t]), i1 = tied_source(axis1, at.o1, r1[t]);
        x_row[t] =
            first + t < taps && i0 >= 0 && i1 >= 0
                ? x + ((static_cast<int64_t>(at.n) * axis0.input + i0) * axis1.input + i1) * axis.input * C +
                      channel[t]
                : nullptr;
      }
      const Stored* dy_row = dy + static_cast<int64_t>(row) * axis.output * K + mine.k;
      const int end = o + kGroupedRun < axis.output ? o + kGroupedRun : axis.output;
      for (; o < end; ++o) {
        Value dy_o[kLanes];
        load_lanes(dy_row + o * K, dy_o);
#pragma unroll
        for (int t = 0; t < kTaps; ++t) {
          int i = o * axis.stride + at_r2[t];
          const bool tied = axis.input_dilation == 1 || i % axis.input_dilation == 0;
          if (axis.input_dilation != 1) i /= axis.input_dilation;
          Value x_i[kLanes];
          load_lanes_if(tied && x_row[t] != nullptr && is_inside(i, axis.input), x_row[t], i * C, x_i);
#pragma unroll
          for (int c = 0; c < kSources; ++c)
#pragma unroll
            for (int l = 0; l < kLanes; ++l) dw_r[t][c][l] += (kGroup == kLanes ? x_i[c] : x_i[l]) * dy_o[l];
        }
      }
    });
  }

#pragma unroll
  for (int t = 0; t < kTaps; ++t) {
#pragma unroll
    for (int c = 0; c < kSources; ++c) {
      add_slots(dw_r[t][c], [&](unsigned x, unsigned y, int l, Value sum) {
        const Mine owner = find_mine(p, split, kLanes, x, y);
        const int r = owner.piece * kTaps + t;
        if (owner.k >= p.out_channels || r >= taps) return;
        result.store(owner.part, static_cast<int64_t>(taps) * kSources * K,
                     (static_cast<int64_t>(r) * kSources + c) * K + owner.k + l, sum);
      });
    }
  }
}

// For dilated inputs or mostly padding: a piece is kRows of one phase's rows (r,c), and the positions are
// those of the phase that its taps meet.
template <typename Stored, int kRows>
__global__ void __launch_bounds__(kGroupedThreads, 2)
    grouped_filter_phase_kernel(GroupedProblem grouped, GroupedFilterSplit split, ConvProblem p,
                                Phases phases, const Stored* __restrict__ x, const Stored* __restrict__ dy,
                                Result<Stored> result) {
  using Value = Sum<Stored>;
  const Mine mine = find_mine(grouped, split, 1, threadIdx.x, threadIdx.y);
  PhasePiece piece(p, phases, mine.piece, kRows);
  const int64_t K = p.out_channels, first_row = piece.first_row;

  Value dw_r[kRows][1] = {};
  if (mine.k < K && first_row < piece.rows) {
    const int64_t depth =
        piece.trim(p, first_row, first_row + kRows < piece.rows ? first_row + kRows : piece.rows);
    const int64_t length = tiles_over(depth, split.parts), begin = mine.part * length;
    const int64_t end = begin + length < depth ? begin + length : depth;
    FilterRow row[kRows];
#pragma unroll
    for (int t = 0; t < kRows; ++t) row[t] = FilterRow(p, piece, first_row + t);
    const Stored* x_group = x + mine.k / p.group_out() * p.group_in();
    const Position step(p, piece, blockDim.z);
    for (Position at(p, piece, begin + threadIdx.z); at.flat < end; at.move(p, piece, step)) {
      const Value dy_ok = widen(dy[dy_position(p, piece, at) * K + mine.k]);
#pragma unroll
      for (int t = 0; t < kRows; ++t) {
        const Stored* x_ic = row[t].tied(p, piece, x_group, at);
        if (x_ic != nullptr) dw_r[t][0] += widen(*x_ic) * dy_ok;
      }
    }
  }

#pragma unroll
  for (int t = 0; t < kRows; ++t) {
    add_slots(dw_r[t], [&](unsigned x, unsigned y, int, Value sum) {
      const Mine owner = find_mine(grouped, split, 1, x, y);
      const PhasePiece owned(p, phases, owner.piece, kRows);
      if (owner.k >= K || owned.first_row + t >= owned.rows) return;
      result.store(owner.part, p.taps() * p.group_in() * K,
                   owned.row_in_filter(p, owned.first_row + t) * K + owner.k, sum);
    });
  }
}

// Launches one problem in its dtype.
template <typename Stored>
struct Launch {
  const ConvProblem& problem;
  GroupedFilterSplit split;
  const Stored *x, *dy;
  Result<Stored> result;
  cudaStream_t stream;

  template <typename Kernel>
  cudaError_t launch(Kernel kernel, GroupedLanes lanes, int64_t pieces, int values) const {
    GroupedProblem p = grouped_problem(problem);
    GroupedFilterSplit pieced = split;
    const GroupedBlock block = grouped_filter_block(p, pieced, lanes, problem.dtype, pieces);
    const size_t shared_bytes = sizeof(Sum<Stored>) * values * block.x * block.y * block.z;
    return launch_blocks(kernel, block.blocks, dim3(block.x, block.y, block.z), shared_bytes, stream, p,
                         pieced, x, dy, result);
  }

  template <int kTaps, int kStride, int kRows>
  cudaError_t window() const {
    constexpr int kLanes = kVectorLanes<Stored>;
    return launch(grouped_filter_window_kernel<Stored, kTaps, kStride, kRows>, {kLanes, 1},
                  tiles_over(problem.taps() / kTaps, kRows), kTaps * kLanes);
  }

  template <int kLanes, int kGroup, int kTaps>
  cudaError_t run() const {
    const int64_t taps = problem.taps() * (kGroup == 0 ? problem.group_in() : 1);
    return launch(grouped_filter_run_kernel<Stored, kLanes, kGroup, kTaps>, {kLanes, kGroup},
                  tiles_over(taps, kTaps), kLanes);
  }

  cudaError_t phases() const {
    constexpr int kRows = 4;
    const Phases all(problem, ResultIs::kTaps);
    GroupedProblem p = grouped_problem(problem);
    GroupedFilterSplit pieced = split;
    const GroupedBlock block =
        grouped_filter_block(p, pieced, {1, 0}, problem.dtype,
                             all.count() * tiles_over(all.most_taps() * problem.group_in(), kRows));
    if (!all.covers()) {
      const cudaError_t error = clear_filter(problem, {split.parts, 0}, result.dw, result.partials, stream);
      if (error != cudaSuccess) return error;
    }
    const size_t shared_bytes = sizeof(Sum<Stored>) * block.x * block.y * block.z;
    return launch_blocks(grouped_filter_phase_kernel<Stored, kRows>, block.blocks,
                         dim3(block.x, block.y, block.z), shared_bytes, stream, p, pieced, problem, all, x,
                         dy, result);
  }

  // Runs depthwise layers in vectors, with a compiled window or the general kernel.
  cudaError_t depthwise() const {
    const GroupedProblem p = grouped_problem(problem);
    if (is_windowed(p, 3, 1, 1)) return window<3, 1, 3>();
    if (is_windowed(p, 3, 2, 1)) return window<3, 2, 1>();
    if constexpr (sizeof(Stored) < 8) {  // more kernels for f64 would be code for very few users
      if (is_windowed(p, 5, 1, 1)) return window<5, 1, 1>();
      if (is_windowed(p, 5, 2, 1)) return window<5, 2, 1>();
      if (is_windowed(p, 7, 1, 1)) return window<7, 1, 1>();
      if (is_windowed(p, 7, 2, 1)) return window<7, 2, 1>();
    }
    return run<kVectorLanes<Stored>, 1, 4>();
  }
};

}  // namespace

cudaError_t grouped_wgrad(const ConvProblem& problem, const void* x, const void* dy, void* dw,
                          void* workspace, cudaStream_t stream) {
  // The number of parts must not depend on the lanes, because the workspace was sized before any pointer was
  // known.
  const GroupedFilterSplit split = grouped_filter_split(problem);
  const int group = is_aligned(x) && is_aligned(dy) ? grouped_lanes(problem).group : 0;
  const cudaError_t error = dispatch(problem.dtype, [&](auto tag) {
    using Stored = typename decltype(tag)::type;
    const Launch<Stored> launch{problem,
                                split,
                                static_cast<const Stored*>(x),
                                static_cast<const Stored*>(dy),
                                {static_cast<Stored*>(dw),
                                 static_cast<Sum<Stored>*>(partials_of(problem, split.parts, dw, workspace))},
                                stream};
    if (filter_has_phases(problem)) return launch.phases();
    if (group == 1) return launch.depthwise();
    if (group == 4) return launch.template run<4, 4, 2>();
    if constexpr (sizeof(Stored) < 8)
      if (group == 8) return launch.template run<8, 8, 1>();
    return launch.template run<1, 0, 4>();
  });
  if (error != cudaSuccess || split.parts == 1) return error;
  return add_parts(problem.result_dtype(), workspace, dw, split.parts,
                   problem.taps() * problem.group_in() * problem.out_channels, stream);
}

}  // namespace convgrad::cuda
