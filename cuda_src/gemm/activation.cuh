// Computes an activation as an implicit matrix product, multistage:
//
//     y[n,o,k] = sum over r, c of x[n,i,c] * w[r,c,k]      rows (n,o), columns k, depth (r,c)
//
// Slices of the depth are copied into shared memory several stages ahead of the multiply-adds (cp.async). x
// is gathered by the relation during the copy, so no unrolled copy of it is ever in memory. A block computes
// rows of one phase (common_src/phase.h), so no zero between dilated inputs is multiplied; these are the
// zeros of a strided dgrad. dgrad is the same product over the transposed problem, with the filter's taps
// flipped and its channel axes swapped.
#pragma once

#include <cstdint>

#include "common_src/major.h"
#include "cuda_src/arch/shared_memory.cuh"
#include "cuda_src/block/activation.cuh"
#include "cuda_src/block/f64.cuh"
#include "cuda_src/block/fma.cuh"
#include "cuda_src/block/mma.cuh"
#include "cuda_src/block/pipeline.cuh"
#include "cuda_src/conv_kernels.h"

namespace convgrad::cuda {

// The place of a filter's element (r,c,k) in memory, for fprop. The contiguous index, c or k, is the one
// along which a tile's lines run.
struct GemmFilterMNMajor {
  static constexpr Major kMajor = Major::kMN;
  __device__ static int64_t at(const ConvProblem& p, int64_t group, int64_t tap, int64_t c, int64_t k) {
    return (tap * p.group_in() + c) * p.out_channels + group * p.group_out() + k;
  }
};
// The same for dgrad, in the letters of the transposed problem: its c is the stored filter's k, and its k the
// stored c.
struct GemmFilterKMajor {
  static constexpr Major kMajor = Major::kK;
  __device__ static int64_t at(const ConvProblem& p, int64_t group, int64_t tap, int64_t c, int64_t k) {
    return ((p.taps() - 1 - tap) * p.group_out() + k) * p.in_channels + group * p.group_in() + c;
  }
};

// Iterates over the taps of a phase.
class PhaseTaps {
 public:
  __device__ explicit PhaseTaps(const PhaseAxis (&phase)[kAxes]) : phase_(phase) {}

  __device__ int64_t count() const { return phase_[0].taps * phase_[1].taps * phase_[2].taps; }
  __device__ void next() {
    if (++r_[2] < phase_[2].taps) return;
    r_[2] = 0;
    if (++r_[1] < phase_[1].taps) return;
    r_[1] = 0;
    ++r_[0];
  }
  __device__ void set(int tap) {
    const int taps2 = static_cast<int>(phase_[2].taps), taps1 = static_cast<int>(phase_[1].taps);
    r_[2] = tap % taps2;
    r_[1] = tap / taps2 % taps1;
    r_[0] = tap / taps2 / taps1;
  }
  // Returns the distance of the tap along axis a from a window's start.
  __device__ int step(int a) const { return r_[a] * static_cast<int>(phase_[a].tap_step); }
  // Returns the flat index of the tap in the whole filter.
  __device__ int64_t in_filter(const Axis (&axis)[kAxes]) const {
    int64_t flat = 0;
#pragma unroll
    for (int a = 0; a < kAxes; ++a) flat = flat * axis[a].taps + phase_[a].r_first + r_[a] * phase_[a].r_step;
    return flat;
  }

 private:
  const PhaseAxis (&phase_)[kAxes];
  int r_[kAxes] = {};
};

// One row's window: its start along each axis, and x at the row's image and group, or null past the last row.
template <typename Stored>
struct Window {
  const Stored* image;
  int start[kAxes];

  // Returns x's channels at the input that a tap ties to the window, or null.
  __device__ const Stored* tied(const ConvProblem& p, const PhaseTaps& taps) const {
    int64_t flat = 0;
    bool on_input = image != nullptr;
#pragma unroll
    for (int a = 0; a < kAxes; ++a) {
      const int i = start[a] + taps.step(a);
      on_input = on_input && i >= 0 && i < p.axis[a].input;
      flat = flat * p.axis[a].input + i;
    }
    return on_input ? image + flat * p.in_channels : nullptr;
  }
};

// Returns a row's window, and sets y_at to the place in y where the row's channels begin, or kNone.
template <typename Stored>
__device__ Window<Stored> window_of(const ConvProblem& p, const ActivationBlock& block, const Stored* x,
                                    int row, int64_t& y_at) {
  Window<Stored> window = {nullptr, {}};
  y_at = kNone;
  if (block.first_row + row >= block.rows) return window;
  const Coord o = block.coord(block.first_row + row);
#pragma unroll
  for (int a = 0; a < kAxes; ++a) window.start[a] = static_cast<int>(block.phase[a].start(o.at[a]));
  window.image = x + o.n * p.inputs() * p.in_channels + block.group * p.group_in();
  y_at = block.output_at(p, o) * p.out_channels + block.group * p.group_out();
  return window;
}

// kWide: a group's channels, in and out, fill whole chunks of 16 bytes. Then a slice is some channels of one
// tap, copied chunk by chunk. Otherwise a slice is any range of (r,c), copied number by number.
template <Math kMath, typename Tile, typename Filter, bool kWide, int kStages>
struct GemmActivation {
  using Stored = typename MathTypes<kMath>::Stored;
  using TileA = OperandTile<Stored, Tile::kRows, Major::kK>;
  using TileB = OperandTile<Stored, Tile::kColumns, Filter::kMajor>;
  static constexpr int kDepth = kSliceDepth<Stored>;
  static constexpr int kStageElements = TileA::kElements + TileB::kElements;

  struct Shared {
    Stored stages[kStages][kStageElements];
    int64_t y_at[Tile::kRows];
    Window<Stored> window[kWide ? 1 : Tile::kRows];
  };

  __device__ static void run(const ConvProblem& p, const ActivationPhases& phases, const Stored* x,
                             const Stored* w, const Epilogue& epilogue, Stored* y) {
    Shared& shared = *shared_memory<Shared>();
    const ActivationBlock block(p, phases, Tile::kRows, Tile::kColumns);
    if (block.first_row >= block.rows) return;  // a phase with fewer rows than the largest; all threads leave
    GemmSum<kMath, Tile, Major::kK, Filter::kMajor> sum;
    if constexpr (kWide)
      sum_chunks(p, x, w, block, shared, sum);
    else
      sum_numbers(p, x, w, block, shared, sum);
    const auto row_at = [&](int row) { return shared.y_at[row]; };
    sum.store(GemmStore<Stored, kWide, decltype(row_at)>{y, row_at, block.first_column, p.group_out(),
                                                         epilogue, block.group * p.group_out()});
  }

 private:
  template <typename Sum>
  __device__ static void sum_chunks(const ConvProblem& p, const Stored* x, const Stored* w,
                                    const ActivationBlock& block, Shared& shared, Sum& sum) {
    const int thread = static_cast<int>(threadIdx.x);
    constexpr int kFillsA = TileA::kChunks / kGemmThreads, kFillsB = TileB::kChunks / kGemmThreads;
    static_assert(kFillsA * kGemmThreads == TileA::kChunks && kFillsB * kGemmThreads == TileB::kChunks);
    const int64_t C = p.group_in(), K = p.group_out();

    // This thread's part of each slice of x: one chunk of some rows.
    const int a_line = thread / TileA::kLineChunks, a_chunk = thread % TileA::kLineChunks;
    constexpr int kLinesA = kGemmThreads / TileA::kLineChunks;
    Window<Stored> window[kFillsA];
#pragma unroll
    for (int j = 0; j < kFillsA; ++j) {
      int64_t y_at;
      window[j] = window_of(p, block, x, a_line + j * kLinesA, y_at);
      if (a_chunk == 0) shared.y_at[a_line + j * kLinesA] = y_at;
    }
    // This thread's part of each slice of the filter: one chunk of some lines.
    const int b_line = thread / TileB::kLineChunks, b_chunk = thread % TileB::kLineChunks;
    constexpr int kLinesB = kGemmThreads / TileB::kLineChunks;

    PhaseTaps taps(block.phase);
    const Stored* source[kFillsA];
    int64_t c = 0, tap = 0;
    const auto enter_tap = [&] {
      tap = taps.in_filter(p.axis);
#pragma unroll
      for (int j = 0; j < kFillsA; ++j) source[j] = window[j].tied(p, taps);
    };
    if (taps.count() > 0) enter_tap();

    const auto fill = [&](int stage) {
      Stored* a = shared.stages[stage];
      Stored* b = a + TileA::kElements;
      const int64_t a_c = c + a_chunk * kChunk<Stored>;
#pragma unroll
      for (int j = 0; j < kFillsA; ++j) {
        const bool tied = source[j] != nullptr && a_c < C;
        cp_async<16>(a + TileA::chunk(a_line + j * kLinesA, a_chunk), tied ? source[j] + a_c : x, tied);
      }
#pragma unroll
      for (int j = 0; j < kFillsB; ++j) {
        const int line = b_line + j * kLinesB;
        const int64_t b_c = c + (TileB::kIsKMajor ? b_chunk * kChunk<Stored> : line);
        const int64_t k = block.first_column + (TileB::kIsKMajor ? line : b_chunk * kChunk<Stored>);
        const bool there = b_c < C && k < K;
        cp_async<16>(b + TileB::chunk(line, b_chunk), there ? w + Filter::at(p, block.group, tap, b_c, k) : w,
                     there);
      }
      c += kDepth;
      if (c >= C) {
        c = 0;
        taps.next();
        enter_tap();
      }
    };
    run_pipeline<kStages>(taps.count() * tiles_over(C, kDepth), fill, [&](int stage) {
      sum.multiply_add(shared.stages[stage], shared.stages[stage] + TileA::kElements);
    });
  }

  template <typename Sum>
  __device__ static void sum_numbers(const ConvProblem& p, const Stored* x, const Stored* w,
                                     const ActivationBlock& block, Shared& shared, Sum& sum) {
    const int thread = static_cast<int>(threadIdx.x);
    for (int row = thread; row < Tile::kRows; row += kGemmThreads)
      shared.window[row] = window_of(p, block, x, row, shared.y_at[row]);
    __syncthreads();

    // This thread's part of each slice: one depth of some rows of x and of some columns of the filter.
    const int depth = thread % kDepth, first_line = thread / kDepth;
    constexpr int kLines = kGemmThreads / kDepth;
    const int C = p.group_in() > 0 ? static_cast<int>(p.group_in()) : 1;  // 0 channels: no slice
    PhaseTaps taps(block.phase);
    const int all_taps = static_cast<int>(taps.count());
    int tap = depth / C, c = depth % C;

    const auto fill = [&](int stage) {
      Stored* a = shared.stages[stage];
      Stored* b = a + TileA::kElements;
      const bool there = tap < all_taps;
      int64_t in_filter = 0;
      if (there) {
        taps.set(tap);
        in_filter = taps.in_filter(p.axis);
      }
#pragma unroll 4
      for (int row = first_line; row < Tile::kRows; row += kLines) {
        const Stored* tied = there ? shared.window[row].tied(p, taps) : nullptr;
        copy(a + TileA::element(row, depth), tied != nullptr ? tied + c : nullptr);
      }
#pragma unroll 4
      for (int column = first_line; column < Tile::kColumns; column += kLines) {
        const int64_t k = block.first_column + column;
        copy(b + TileB::element(column, depth),
             there && k < p.group_out() ? w + Filter::at(p, block.group, in_filter, c, k) : nullptr);
      }
      c += kDepth;
      tap += c / C;
      c %= C;
    };
    const int64_t slices = tiles_over(all_taps * p.group_in(), kDepth);
    run_pipeline<kStages>(slices, fill, [&](int stage) {
      sum.multiply_add(shared.stages[stage], shared.stages[stage] + TileA::kElements);
    });
  }

  // Copies one number, or zero for a null pointer.
  __device__ static void copy(Stored* to, const Stored* from) { *to = from != nullptr ? *from : Stored{}; }
};

template <Math kMath, typename Tile, typename Filter, bool kWide, int kStages>
__global__ void __launch_bounds__(kGemmThreads)
    gemm_activation_kernel(ConvProblem p, ActivationPhases phases, const typename MathTypes<kMath>::Stored* x,
                           const typename MathTypes<kMath>::Stored* w, Epilogue epilogue,
                           typename MathTypes<kMath>::Stored* y) {
  GemmActivation<kMath, Tile, Filter, kWide, kStages>::run(p, phases, x, w, epilogue, y);
}

template <Math kMath, typename Tile, typename Filter, bool kWide>
cudaError_t launch_gemm_activation(const ConvProblem& p, const void* x, const void* w, Epilogue epilogue,
                                   void* y, cudaStream_t stream) {
  using Stored = typename MathTypes<kMath>::Stored;
  constexpr int kStages = 4;
  using Kernel = GemmActivation<kMath, Tile, Filter, kWide, kStages>;
  const ActivationPhases phases(p);
  if (!phases.phases.covers()) {
    const cudaError_t error = empty_sums(p, epilogue, y, stream);
    if (error != cudaSuccess) return error;
  }
  return launch_blocks(gemm_activation_kernel<kMath, Tile, Filter, kWide, kStages>,
                       phases.blocks(p, Tile::kRows, Tile::kColumns), kGemmThreads,
                       sizeof(typename Kernel::Shared), stream, p, phases, static_cast<const Stored*>(x),
                       static_cast<const Stored*>(w), epilogue, static_cast<Stored*>(y));
}

}  // namespace convgrad::cuda
