// Computes a filter's gradient as an implicit matrix product, multistage:
//
//     dw[r,c,k] = sum over n, o of x[n,i,c] * dy[n,o,k]    rows (r,c), columns k, depth (n,o)
//
// Slices of the depth are copied into shared memory several stages ahead of the multiply-adds (cp.async). A
// filter has few elements and a batch has many positions, so the depth is split into parts, one block each;
// the parts' sums go to the workspace and are added in order. If inputs are dilated, or most of them are
// padding, a block computes rows of one phase (common_src/phase.h) over the positions that these meet.
//
// If db[k] = sum over n, o of dy[n,o,k] is wanted too, the blocks of the first rows also add the columns of
// dy's tiles.
#pragma once

#include <cstdint>
#include <type_traits>

#include "common_src/major.h"
#include "cuda_src/arch/shared_memory.cuh"
#include "cuda_src/block/f64.cuh"
#include "cuda_src/block/filter.cuh"
#include "cuda_src/block/fma.cuh"
#include "cuda_src/block/mma.cuh"
#include "cuda_src/block/pipeline.cuh"
#include "cuda_src/conv_kernels.h"
#include "cuda_src/gemm/column_sums.cuh"

namespace convgrad::cuda {

// The positions and rows of a block if inputs are not dilated: all outputs and all taps.
struct AllPositions {
  int first_row, rows, first_column, group, part;
  int64_t begin, end;

  __device__ AllPositions(const ConvProblem& p, const Phases&, Split split, int tile_rows, int tile_columns,
                          int) {
    rows = static_cast<int>(p.taps() * p.group_in());
    // Blocks that read the same part of x and dy are neighbours, so that they find it in the cache.
    int block = static_cast<int>(blockIdx.x);
    const int column_tiles = static_cast<int>(tiles_over(p.group_out(), tile_columns)),
              row_tiles = static_cast<int>(tiles_over(rows, tile_rows)), groups = static_cast<int>(p.groups);
    first_column = block % column_tiles * tile_columns;
    block /= column_tiles;
    first_row = block % row_tiles * tile_rows;
    block /= row_tiles;
    group = block % groups;
    part = block / groups;
    const int64_t depth = p.batch * p.outputs();
    begin = part * split.length;
    end = begin + split.length < depth ? begin + split.length : depth;
  }

  __device__ Coord coord(const ConvProblem& p, int64_t position) const {
    return output_coord(p.axis, position);
  }
  __device__ int outputs(const ConvProblem& p, int a) const { return static_cast<int>(p.axis[a].output); }
  __device__ int output_step(const ConvProblem& p, int a) const { return static_cast<int>(p.axis[a].stride); }
  // Finds the distance of a row's tap from a window's start.
  __device__ void find_steps(const ConvProblem& p, int64_t row, int (&step)[kAxes]) const {
    const Coord r = tap_coord(p.axis, row / p.group_in());
#pragma unroll
    for (int a = 0; a < kAxes; ++a)
      step[a] = static_cast<int>(r.at[a] * p.axis[a].filter_dilation - p.axis[a].pad_lo);
  }
  __device__ int64_t row_in_filter(const ConvProblem&, int64_t row) const { return row; }
};

// A position for blocks over all positions: its flat number says where to read dy.
struct FlatPosition {
  int64_t flat;

  FlatPosition() = default;
  __device__ FlatPosition(const ConvProblem&, const AllPositions&, int64_t at) : flat(at) {}
  __device__ void move(const ConvProblem&, const AllPositions&, const FlatPosition& by) { flat += by.flat; }
};
__device__ inline int64_t dy_position(const ConvProblem&, const AllPositions&, const FlatPosition& position) {
  return position.flat;
}

// kWide: a group's channels, in and out, fill whole chunks of 16 bytes, which are copied at once. Otherwise
// numbers are copied one by one. Block is AllPositions or FilterBlock.
template <Math kMath, typename Tile, bool kWide, int kStages, typename Block>
struct GemmFilter {
  using Stored = typename MathTypes<kMath>::Stored;
  using Value = typename MathTypes<kMath>::Value;
  using TileA = OperandTile<Stored, Tile::kRows, Major::kMN>;
  using TileB = OperandTile<Stored, Tile::kColumns, Major::kMN>;
  using BiasSums = ColumnSums<Stored, TileB>;
  using TileSum = GemmSum<kMath, Tile, Major::kMN, Major::kMN>;
  static constexpr int kDepth = kSliceDepth<Stored>;
  static constexpr bool kPhased = std::is_same_v<Block, FilterBlock>;
  using PositionOfDy = std::conditional_t<kPhased, Position, FlatPosition>;

  struct Shared {
    Stored stages[kStages][TileA::kElements + TileB::kElements];
    FilterRow row[kWide ? 1 : Tile::kRows];
    BiasSums bias;
  };

  // Writes dw, and db unless it is null, if `partials` is null; otherwise partials[part,r,c,k] followed by
  // those of db, [part,k]. db is null with phases, because then no block sees all of dy.
  __device__ static void run(const ConvProblem& p, const Phases& phases, Split split, const Stored* x,
                             const Stored* dy, Stored* dw, Stored* db, Value* partials) {
    const int64_t C = p.group_in(), K = p.group_out(), all_rows = p.taps() * C;
    const Block block(p, phases, split, Tile::kRows, Tile::kColumns, kDepth);
    const auto first_row = block.first_row, first_column = block.first_column, group = block.group,
               part = block.part;
    if (kPhased && first_row >= block.rows) return;  // a phase shorter than the largest; all threads

    TileSum sum;
    const bool sums_bias = !kPhased && db != nullptr && first_row == 0;
    Shared& shared = *shared_memory<Shared>();
    if (sums_bias) shared.bias.clear();
    const auto multiply = [&](int stage) {
      const Stored *a = shared.stages[stage], *b = a + TileA::kElements;
      sum.multiply_add(a, b);
      if (sums_bias) shared.bias.add(b);
    };
    const Stored *x_group = x + group * C, *dy_group = dy + group * K;
    if constexpr (kWide)
      sum_chunks(p, block, x_group, dy_group, shared, multiply);
    else
      sum_numbers(p, block, x_group, dy_group, shared, multiply);

    const auto row_at = [&](int row) {
      if (first_row + row >= block.rows) return kNone;
      return block.row_in_filter(p, first_row + row) * p.out_channels + group * K;
    };
    if (partials != nullptr)
      sum.store(GemmStore<Value, kWide, decltype(row_at)>{partials + part * (all_rows * p.out_channels),
                                                          row_at, first_column, K});
    else
      sum.store(GemmStore<Stored, kWide, decltype(row_at)>{dw, row_at, first_column, K});
    if (!sums_bias) return;
    shared.bias.finish([&](int column, Value db_k) {
      if (first_column + column >= K) return;
      const int64_t k = group * K + first_column + column;
      if (partials != nullptr)
        partials[(split.parts * all_rows + part) * p.out_channels + k] = db_k;
      else
        db[k] = narrow<Stored>(db_k);
    });
  }

 private:
  template <typename Multiply>
  __device__ static void sum_chunks(const ConvProblem& p, const Block& block, const Stored* x,
                                    const Stored* dy, Shared& shared, const Multiply& multiply) {
    const int thread = static_cast<int>(threadIdx.x);
    // This thread's part of each slice: the same rows of x and columns of dy, at some positions.
    constexpr int kFillsA = TileA::kChunks / kGemmThreads, kFillsB = TileB::kChunks / kGemmThreads;
    static_assert(kFillsA * kGemmThreads == TileA::kChunks && kFillsB * kGemmThreads == TileB::kChunks);
    const int a_line = thread / TileA::kLineChunks, a_chunk = thread % TileA::kLineChunks;
    const int b_line = thread / TileB::kLineChunks, b_chunk = thread % TileB::kLineChunks;
    constexpr int kLinesA = kGemmThreads / TileA::kLineChunks, kLinesB = kGemmThreads / TileB::kLineChunks;
    const int64_t begin = block.begin, end = block.end;
    const FilterRow row(p, block, block.first_row + a_chunk * kChunk<Stored>);
    const int64_t k = block.first_column + b_chunk * kChunk<Stored>;
    const Position slice(p, block, kDepth);
    Position position[kFillsA];
#pragma unroll
    for (int j = 0; j < kFillsA; ++j) position[j] = Position(p, block, begin + a_line + j * kLinesA);
    const PositionOfDy slice_of_dy(p, block, kDepth);
    constexpr int kPositionsB = kPhased ? kFillsB : 1;
    PositionOfDy b_position[kPositionsB];
#pragma unroll
    for (int j = 0; j < kPositionsB; ++j)
      b_position[j] = PositionOfDy(p, block, begin + b_line + j * kLinesB);

    const auto fill = [&](int stage) {
      Stored* a = shared.stages[stage];
      Stored* b = a + TileA::kElements;
#pragma unroll
      for (int j = 0; j < kFillsA; ++j) {
        const Stored* tied = position[j].flat < end ? row.tied(p, block, x, position[j]) : nullptr;
        cp_async<16>(a + TileA::chunk(a_line + j * kLinesA, a_chunk), tied != nullptr ? tied : x,
                     tied != nullptr);
        position[j].move(p, block, slice);
      }
#pragma unroll
      for (int j = 0; j < kFillsB; ++j) {
        const PositionOfDy& from = b_position[j % kPositionsB];
        const int ahead = kPhased ? 0 : j * kLinesB;
        const bool there = from.flat + ahead < end && k < p.group_out();
        cp_async<16>(b + TileB::chunk(b_line + j * kLinesB, b_chunk),
                     there ? dy + (dy_position(p, block, from) + ahead) * p.out_channels + k : dy, there);
      }
#pragma unroll
      for (int j = 0; j < kPositionsB; ++j) b_position[j].move(p, block, slice_of_dy);
    };
    run_pipeline<kStages>(tiles_over(end - begin, kDepth), fill, multiply);
  }

  template <typename Multiply>
  __device__ static void sum_numbers(const ConvProblem& p, const Block& block, const Stored* x,
                                     const Stored* dy, Shared& shared, const Multiply& multiply) {
    // This thread's part of each slice: some rows of x and columns of dy, at one position.
    const int depth = static_cast<int>(threadIdx.x) % kDepth;
    const int first_line = static_cast<int>(threadIdx.x) / kDepth;
    constexpr int kLines = kGemmThreads / kDepth;
    const int64_t end = block.end, first_column = block.first_column;
    const Position slice(p, block, kDepth);
    Position position(p, block, block.begin + depth);
    for (int row = static_cast<int>(threadIdx.x); row < Tile::kRows; row += kGemmThreads)
      shared.row[row] = FilterRow(p, block, block.first_row + row);
    __syncthreads();

    const auto fill = [&](int stage) {
      Stored* a = shared.stages[stage];
      Stored* b = a + TileA::kElements;
      for (int line = first_line; line < Tile::kRows; line += kLines) {
        const Stored* tied = position.flat < end ? shared.row[line].tied(p, block, x, position) : nullptr;
        a[TileA::element(line, depth)] = tied != nullptr ? *tied : Stored{};
      }
      const int64_t at = dy_at(p, block, position);
      for (int line = first_line; line < Tile::kColumns; line += kLines) {
        const bool there = position.flat < end && first_column + line < p.group_out();
        b[TileB::element(line, depth)] = there ? dy[at * p.out_channels + first_column + line] : Stored{};
      }
      position.move(p, block, slice);
    };
    run_pipeline<kStages>(tiles_over(end - block.begin, kDepth), fill, multiply);
  }

  // Returns where to read dy at a position.
  __device__ static int64_t dy_at(const ConvProblem& p, const Block& block, const Position& position) {
    if constexpr (kPhased)
      return dy_position(p, block, position);
    else
      return position.flat;
  }
};

template <Math kMath, typename Tile, bool kWide, int kStages, typename Block>
__global__ void __launch_bounds__(kGemmThreads, std::is_same_v<Block, FilterBlock> ? 1 : 0)
    gemm_filter_kernel(ConvProblem p, Phases phases, Split split, const typename MathTypes<kMath>::Stored* x,
                       const typename MathTypes<kMath>::Stored* dy, typename MathTypes<kMath>::Stored* dw,
                       typename MathTypes<kMath>::Stored* db, typename MathTypes<kMath>::Value* partials) {
  GemmFilter<kMath, Tile, kWide, kStages, Block>::run(p, phases, split, x, dy, dw, db, partials);
}

template <Math kMath, typename Tile, bool kWide>
cudaError_t launch_gemm_filter(const ConvProblem& p, Split split, const void* x, const void* dy, void* dw,
                               void* db, void* partials, cudaStream_t stream) {
  using Stored = typename MathTypes<kMath>::Stored;
  using Value = typename MathTypes<kMath>::Value;
  constexpr int kStages = 4;
  const Phases phases(p, ResultIs::kTaps);
  const int64_t blocks = filter_blocks(p, phases, split, Tile::kRows, Tile::kColumns);
  const auto launch = [&](auto kernel, size_t shared_bytes) {
    return launch_blocks(kernel, blocks, kGemmThreads, shared_bytes, stream, p, phases, split,
                         static_cast<const Stored*>(x), static_cast<const Stored*>(dy),
                         static_cast<Stored*>(dw), static_cast<Stored*>(db), static_cast<Value*>(partials));
  };
  if (!filter_has_phases(p))
    return launch(gemm_filter_kernel<kMath, Tile, kWide, kStages, AllPositions>,
                  sizeof(typename GemmFilter<kMath, Tile, kWide, kStages, AllPositions>::Shared));
  if (!phases.covers()) {
    const cudaError_t error = clear_filter(p, split, dw, partials, stream);
    if (error != cudaSuccess) return error;
  }
  return launch(gemm_filter_kernel<kMath, Tile, kWide, kStages, FilterBlock>,
                sizeof(typename GemmFilter<kMath, Tile, kWide, kStages, FilterBlock>::Shared));
}

}  // namespace convgrad::cuda
