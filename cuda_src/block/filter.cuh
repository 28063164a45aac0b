// The block of a matrix-product kernel whose result is a filter: a tile of rows (r,c) of one phase
// (common_src/phase.h), summed over a part of the positions (n,o) that the phase's taps meet.
#pragma once

#include <cstdint>

#include "common_src/integers.h"
#include "common_src/phase.h"
#include "common_src/window.h"
#include "cuda_src/split.h"

namespace convgrad::cuda {

// Returns the number of blocks for tiles of `tile_rows` by `tile_columns`.
inline int64_t filter_blocks(const ConvProblem& p, const Phases& phases, Split split, int tile_rows,
                             int tile_columns) {
  return tiles_over(phases.most_taps() * p.group_in(), tile_rows) * phases.count() *
         tiles_over(p.group_out(), tile_columns) * p.groups * split.parts;
}

// A phase, with functions that map its rows and positions.
struct FilterPhase {
  PhaseAxis phase[kAxes];
  int64_t rows;  // rows of the whole phase

  FilterPhase() = default;
  __device__ FilterPhase(const ConvProblem& p, const Phases& phases, int64_t number) : rows(p.group_in()) {
#pragma unroll
    for (int a = kAxes - 1; a >= 0; --a) {
      const int64_t count = phases.axis[a].count();
      phase[a] = phases.axis[a][number % count];
      number /= count;
      rows *= phase[a].taps;
    }
  }

  // Keeps only the outputs that the taps of rows [first_row, end_row) meet, and returns the number of
  // positions left. The rows' taps span a range along an axis only if they agree along all axes further out;
  // otherwise they span the whole axis.
  __device__ int64_t trim(const ConvProblem& p, int64_t first_row, int64_t end_row) {
    const Coord first = tap_of(p, first_row), last = tap_of(p, end_row - 1);
    bool alike = true;
    int64_t depth = p.batch;
#pragma unroll
    for (int a = 0; a < kAxes; ++a) {
      phase[a].keep_outputs_of(p.axis[a].input, alike ? first.at[a] : 0,
                               alike ? last.at[a] + 1 : phase[a].taps);
      alike = alike && first.at[a] == last.at[a];
      depth *= phase[a].outputs;
    }
    // Without positions coord() is still computed, and divides by these.
    if (depth == 0)
      for (PhaseAxis& each : phase) each.outputs = 1;
    return depth;
  }

  // Returns r' of a row.
  __device__ Coord tap_of(const ConvProblem& p, int64_t row) const {
    return coord_of(row / p.group_in(), phase[0].taps, phase[1].taps, phase[2].taps);
  }
  // Maps row (r,c) of the phase to the row of the whole filter.
  __device__ int64_t row_in_filter(const ConvProblem& p, int64_t row) const {
    const Coord r = tap_of(p, row);
    int64_t flat = 0;
#pragma unroll
    for (int a = 0; a < kAxes; ++a)
      flat = flat * p.axis[a].taps + phase[a].r_first + r.at[a] * phase[a].r_step;
    return flat * p.group_in() + row % p.group_in();
  }
  // Returns n and o' of a position.
  __device__ Coord coord(const ConvProblem&, int64_t position) const {
    return coord_of(position, phase[0].outputs, phase[1].outputs, phase[2].outputs);
  }
  __device__ int outputs(const ConvProblem&, int a) const { return static_cast<int>(phase[a].outputs); }
  __device__ int output_step(const ConvProblem&, int a) const {
    return static_cast<int>(phase[a].output_step);
  }
  // Finds the distance of a row's tap from the start of the window of output 0.
  __device__ void find_steps(const ConvProblem& p, int64_t row, int (&step)[kAxes]) const {
    const Coord r = tap_of(p, row);
#pragma unroll
    for (int a = 0; a < kAxes; ++a)
      step[a] = static_cast<int>(phase[a].first_start + r.at[a] * phase[a].tap_step);
  }
};

struct FilterBlock : FilterPhase {
  int64_t first_row, first_column, group, part;
  int64_t begin, end;  // positions of the phase, the depth

  // A part's length is a multiple of `slice`.
  __device__ FilterBlock(const ConvProblem& p, const Phases& phases, Split split, int tile_rows,
                         int tile_columns, int slice) {
    // Blocks that read the same part of x and dy are neighbours, so that they find it in the cache.
    int64_t block = blockIdx.x;
    const int64_t column_tiles = tiles_over(p.group_out(), tile_columns);
    const int64_t row_tiles = tiles_over(phases.most_taps() * p.group_in(), tile_rows);
    first_column = block % column_tiles * tile_columns;
    block /= column_tiles;
    first_row = block % row_tiles * tile_rows;
    block /= row_tiles;
    const int64_t count = phases.count();
    static_cast<FilterPhase&>(*this) = FilterPhase(p, phases, block % count);
    block /= count;
    group = block % p.groups;
    part = block / p.groups;
    begin = end = 0;
    if (first_row >= rows) return;
    const int64_t depth = trim(p, first_row, first_row + tile_rows < rows ? first_row + tile_rows : rows);
    const int64_t length = tiles_over(tiles_over(depth, split.parts), slice) * slice;
    begin = part * length < depth ? part * length : depth;
    end = begin + length < depth ? begin + length : depth;
  }
};

// A position (n,o), or a distance between two.
struct Position {
  int64_t flat, n;
  int o[kAxes];

  Position() = default;
  template <typename Block>
  __device__ Position(const ConvProblem& p, const Block& block, int64_t at) : flat(at) {
    const Coord coord = block.coord(p, at);
    n = coord.n;
#pragma unroll
    for (int a = 0; a < kAxes; ++a) o[a] = static_cast<int>(coord.at[a]);
  }

  // Adds digit by digit with carries, without a division.
  template <typename Block>
  __device__ void move(const ConvProblem& p, const Block& block, const Position& by) {
    flat += by.flat;
    int carry = 0;
#pragma unroll
    for (int a = kAxes - 1; a >= 0; --a) {
      o[a] += by.o[a] + carry;
      carry = o[a] >= block.outputs(p, a);
      if (carry) o[a] -= block.outputs(p, a);
    }
    n += by.n + carry;
  }
};

// Returns where to read dy at a position of a phase.
__device__ inline int64_t dy_position(const ConvProblem& p, const FilterPhase& block,
                                      const Position& position) {
  int64_t flat = position.n;
#pragma unroll
  for (int a = 0; a < kAxes; ++a)
    flat = flat * p.axis[a].output + block.phase[a].o_first + position.o[a] * block.phase[a].o_step;
  return flat;
}

// A row (r,c) of the result: the distance of r from a window's start, and c, which is negative past the last
// row.
struct FilterRow {
  int step[kAxes];
  int c;

  FilterRow() = default;
  template <typename Block>
  __device__ FilterRow(const ConvProblem& p, const Block& block, int64_t row) {
    c = row < block.rows ? static_cast<int>(row % p.group_in()) : -1;
    if (c >= 0) block.find_steps(p, row, step);
  }

  // Returns x at channel c of the input that the row's tap ties to the position, or null.
  template <typename Stored, typename Block>
  __device__ const Stored* tied(const ConvProblem& p, const Block& block, const Stored* x,
                                const Position& position) const {
    if (c < 0) return nullptr;
    int64_t flat = position.n;
#pragma unroll
    for (int a = 0; a < kAxes; ++a) {
      const int i = position.o[a] * block.output_step(p, a) + step[a];
      if (i < 0 || i >= p.axis[a].input) return nullptr;
      flat = flat * p.axis[a].input + i;
    }
    return x + flat * p.in_channels + c;
  }
};

}  // namespace convgrad::cuda
