// The contraction whose result is a filter, as an implicit matrix product:
//
//     dw[r,c,k] = sum over n, o of x[n,i,c] * dy[n,o,k]    rows (r,c), columns k, depth (n,o)
//
// Slices of the depth are copied into shared memory several stages ahead of the multiply-adds (cp.async). A
// filter has few elements and a batch has many positions, so the depth is split into parts, each a block's
// own; the parts' sums go to the workspace and are added in order.
//
// Where db[k] = sum over n, o of dy[n,o,k] is wanted too, the blocks of the first rows add up the columns of
// dy's tiles beside the products.
#pragma once

#include <cstdint>

#include "cuda_src/gemm_column_sums.cuh"
#include "cuda_src/gemm_f64.cuh"
#include "cuda_src/gemm_fma.cuh"
#include "cuda_src/gemm_mma.cuh"
#include "cuda_src/gemm_pipeline.cuh"
#include "cuda_src/place.cuh"
#include "cuda_src/shared_memory.cuh"
#include "cuda_src/split.h"

namespace convgrad::cuda {

// A position (n,o), or a distance between two.
struct Position {
  int64_t flat, n;
  int o[kAxes];

  Position() = default;
  __device__ Position(const Axis (&axis)[kAxes], int64_t at) : flat(at) {
    const Place place = output_place(axis, at);
    n = place.n;
#pragma unroll
    for (int a = 0; a < kAxes; ++a) o[a] = static_cast<int>(place.at[a]);
  }

  // Digit by digit with carries, without a division.
  __device__ void move(const Axis (&axis)[kAxes], const Position& by) {
    flat += by.flat;
    int carry = 0;
#pragma unroll
    for (int a = kAxes - 1; a >= 0; --a) {
      o[a] += by.o[a] + carry;
      carry = o[a] >= axis[a].output;
      if (carry) o[a] -= static_cast<int>(axis[a].output);
    }
    n += by.n + carry;
  }
};

// A row (r,c) of the result: how far r is from a window's start, and c; past the last row c is negative.
struct FilterRow {
  int step[kAxes];
  int c;

  FilterRow() = default;
  __device__ FilterRow(const ConvProblem& p, int64_t row) {
    const int64_t C = p.group_in();
    const Place r = tap_place(p.axis, row / C);
    c = row < p.taps() * C ? static_cast<int>(row % C) : -1;
#pragma unroll
    for (int a = 0; a < kAxes; ++a)
      step[a] = static_cast<int>(r.at[a] * p.axis[a].filter_dilation - p.axis[a].pad_lo);
  }

  // x's number or chunk at c of the input that the row's tap ties to the position, or null.
  template <typename Stored>
  __device__ const Stored* tied(const ConvProblem& p, const Stored* x, const Position& position) const {
    if (c < 0) return nullptr;
    int64_t flat = position.n;
#pragma unroll
    for (int a = 0; a < kAxes; ++a) {
      int i = position.o[a] * static_cast<int>(p.axis[a].stride) + step[a];
      if (p.axis[a].input_dilation != 1) {  // the same for every thread, and spares most problems a division
        if (i % static_cast<int>(p.axis[a].input_dilation) != 0) return nullptr;
        i /= static_cast<int>(p.axis[a].input_dilation);
      }
      if (i < 0 || i >= p.axis[a].input) return nullptr;
      flat = flat * p.axis[a].input + i;
    }
    return x + flat * p.in_channels + c;
  }
};

// kWide: channels of a group, in and out, come in whole chunks of 16 bytes, which are copied at once. Else
// numbers are copied one by one.
template <Math kMath, typename Tile, bool kWide, int kStages>
struct GemmFilter {
  using Stored = typename MathTypes<kMath>::Stored;
  using Value = typename MathTypes<kMath>::Value;
  using TileA = OperandTile<Stored, Tile::kRows, Along::kRows>;
  using TileB = OperandTile<Stored, Tile::kColumns, Along::kRows>;
  using BiasSums = ColumnSums<Stored, TileB>;
  using TileSum = GemmSum<kMath, Tile, Along::kRows, Along::kRows>;
  static constexpr int kDepth = kSliceDepth<Stored>;

  struct Shared {
    Stored stages[kStages][TileA::kElements + TileB::kElements];
    FilterRow row[kWide ? 1 : Tile::kRows];
    BiasSums bias;
  };

  // Writes dw, and db unless null, where `partials` is null; and else partials[part,r,c,k] and behind them
  // those of db, [part,k].
  __device__ static void run(const ConvProblem& p, Split split, const Stored* x, const Stored* dy, Stored* dw,
                             Stored* db, Value* partials) {
    const int64_t C = p.group_in(), K = p.group_out(), rows = p.taps() * C;
    // Blocks that read the same part of x and dy are neighbours, so that they find it in the cache.
    int64_t block = blockIdx.x;
    const int64_t column_tiles = tiles_over(K, Tile::kColumns), row_tiles = tiles_over(rows, Tile::kRows);
    const int64_t first_column = block % column_tiles * Tile::kColumns;
    block /= column_tiles;
    const int64_t first_row = block % row_tiles * Tile::kRows;
    block /= row_tiles;
    const int64_t group = block % p.groups, part = block / p.groups;
    const int64_t begin = part * split.length, depth = p.batch * p.outputs();
    const int64_t end = begin + split.length < depth ? begin + split.length : depth;

    TileSum sum;
    const bool sums_bias = db != nullptr && first_row == 0;
    Shared& shared = *shared_memory<Shared>();
    if (sums_bias) shared.bias.clear();
    const auto multiply = [&](int stage) {
      const Stored *a = shared.stages[stage], *b = a + TileA::kElements;
      sum.multiply_add(a, b);
      if (sums_bias) shared.bias.add(b);
    };
    const Stored *x_group = x + group * C, *dy_group = dy + group * K;
    if constexpr (kWide)
      sum_chunks(p, x_group, dy_group, first_row, first_column, begin, end, shared, multiply);
    else
      sum_numbers(p, x_group, dy_group, first_row, first_column, begin, end, shared, multiply);

    const auto row_at = [&](int row) {
      return first_row + row < rows ? (first_row + row) * p.out_channels + group * K : kNone;
    };
    if (partials != nullptr)
      sum.store(GemmStore<Value, kWide, decltype(row_at)>{partials + part * rows * p.out_channels, row_at,
                                                          first_column, K});
    else
      sum.store(GemmStore<Stored, kWide, decltype(row_at)>{dw, row_at, first_column, K});
    if (!sums_bias) return;
    shared.bias.finish([&](int column, Value db_k) {
      if (first_column + column >= K) return;
      const int64_t k = group * K + first_column + column;
      if (partials != nullptr)
        partials[(split.parts * rows + part) * p.out_channels + k] = db_k;
      else
        db[k] = narrow<Stored>(db_k);
    });
  }

 private:
  template <typename Multiply>
  __device__ static void sum_chunks(const ConvProblem& p, const Stored* x, const Stored* dy,
                                    int64_t first_row, int64_t first_column, int64_t begin, int64_t end,
                                    Shared& shared, const Multiply& multiply) {
    const int thread = static_cast<int>(threadIdx.x);
    // This thread's part of each slice: the same rows of x and columns of dy, at some positions.
    constexpr int kFillsA = TileA::kChunks / kGemmThreads, kFillsB = TileB::kChunks / kGemmThreads;
    static_assert(kFillsA * kGemmThreads == TileA::kChunks && kFillsB * kGemmThreads == TileB::kChunks);
    const int a_line = thread / TileA::kLineChunks, a_chunk = thread % TileA::kLineChunks;
    const int b_line = thread / TileB::kLineChunks, b_chunk = thread % TileB::kLineChunks;
    constexpr int kLinesA = kGemmThreads / TileA::kLineChunks, kLinesB = kGemmThreads / TileB::kLineChunks;
    const FilterRow row(p, first_row + a_chunk * kChunk<Stored>);
    const int64_t k = first_column + b_chunk * kChunk<Stored>;
    const Position slice(p.axis, kDepth);
    Position position[kFillsA];
#pragma unroll
    for (int j = 0; j < kFillsA; ++j) position[j] = Position(p.axis, begin + a_line + j * kLinesA);
    int64_t b_position = begin + b_line;

    const auto fill = [&](int stage) {
      Stored* a = shared.stages[stage];
      Stored* b = a + TileA::kElements;
#pragma unroll
      for (int j = 0; j < kFillsA; ++j) {
        const Stored* tied = position[j].flat < end ? row.tied(p, x, position[j]) : nullptr;
        cp_async<16>(a + TileA::chunk(a_line + j * kLinesA, a_chunk), tied != nullptr ? tied : x,
                     tied != nullptr);
        position[j].move(p.axis, slice);
      }
#pragma unroll
      for (int j = 0; j < kFillsB; ++j) {
        const int64_t at = b_position + j * kLinesB;
        const bool there = at < end && k < p.group_out();
        cp_async<16>(b + TileB::chunk(b_line + j * kLinesB, b_chunk),
                     there ? dy + at * p.out_channels + k : dy, there);
      }
      b_position += kDepth;
    };
    run_pipeline<kStages>(tiles_over(end - begin, kDepth), fill, multiply);
  }

  template <typename Multiply>
  __device__ static void sum_numbers(const ConvProblem& p, const Stored* x, const Stored* dy,
                                     int64_t first_row, int64_t first_column, int64_t begin, int64_t end,
                                     Shared& shared, const Multiply& multiply) {
    // This thread's part of each slice: some rows of x and columns of dy, at one position.
    const int depth = static_cast<int>(threadIdx.x) % kDepth;
    const int first_line = static_cast<int>(threadIdx.x) / kDepth;
    constexpr int kLines = kGemmThreads / kDepth;
    const Position slice(p.axis, kDepth);
    Position position(p.axis, begin + depth);
    for (int row = static_cast<int>(threadIdx.x); row < Tile::kRows; row += kGemmThreads)
      shared.row[row] = FilterRow(p, first_row + row);
    __syncthreads();

    const auto fill = [&](int stage) {
      Stored* a = shared.stages[stage];
      Stored* b = a + TileA::kElements;
      for (int line = first_line; line < Tile::kRows; line += kLines) {
        const Stored* tied = position.flat < end ? shared.row[line].tied(p, x, position) : nullptr;
        a[TileA::element(line, depth)] = tied != nullptr ? *tied : Stored{};
      }
      for (int line = first_line; line < Tile::kColumns; line += kLines) {
        const bool there = position.flat < end && first_column + line < p.group_out();
        b[TileB::element(line, depth)] =
            there ? dy[position.flat * p.out_channels + first_column + line] : Stored{};
      }
      position.move(p.axis, slice);
    };
    run_pipeline<kStages>(tiles_over(end - begin, kDepth), fill, multiply);
  }
};

template <Math kMath, typename Tile, bool kWide, int kStages>
__global__ void __launch_bounds__(kGemmThreads)
    gemm_filter_kernel(ConvProblem p, Split split, const typename MathTypes<kMath>::Stored* x,
                       const typename MathTypes<kMath>::Stored* dy, typename MathTypes<kMath>::Stored* dw,
                       typename MathTypes<kMath>::Stored* db, typename MathTypes<kMath>::Value* partials) {
  GemmFilter<kMath, Tile, kWide, kStages>::run(p, split, x, dy, dw, db, partials);
}

template <Math kMath, typename Tile, bool kWide>
cudaError_t launch_gemm_filter(const ConvProblem& p, Split split, const void* x, const void* dy, void* dw,
                               void* db, void* partials, cudaStream_t stream) {
  using Stored = typename MathTypes<kMath>::Stored;
  using Value = typename MathTypes<kMath>::Value;
  constexpr int kStages = 4;
  const int64_t blocks = tiles_over(p.taps() * p.group_in(), Tile::kRows) *
                         tiles_over(p.group_out(), Tile::kColumns) * p.groups * split.parts;
  return launch_blocks(gemm_filter_kernel<kMath, Tile, kWide, kStages>, blocks, kGemmThreads,
                       sizeof(typename GemmFilter<kMath, Tile, kWide, kStages>::Shared), stream, p, split,
                       static_cast<const Stored*>(x), static_cast<const Stored*>(dy),
                       static_cast<Stored*>(dw), static_cast<Stored*>(db), static_cast<Value*>(partials));
}

}  // namespace convgrad::cuda
