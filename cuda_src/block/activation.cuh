// The block of a matrix-product kernel whose result is an activation: a tile of rows (n,o) of one phase
// (common_src/phase.h), and the taps that these rows see.
#pragma once

#include <cstdint>

#include "common_src/integers.h"
#include "common_src/phase.h"
#include "common_src/window.h"

namespace convgrad::cuda {

// The launch's phases.
struct ActivationPhases {
  Phases phases;
  bool trims;  // each block searches the taps that its own rows see

  explicit ActivationPhases(const ConvProblem& p)
      : phases(p, ResultIs::kOutputs), trims(is_mostly_padding(p)) {}

  // Returns the number of blocks for tiles of `tile_rows` by `tile_columns`.
  int64_t blocks(const ConvProblem& p, int tile_rows, int tile_columns) const {
    return tiles_over(p.batch * phases.most_outputs(), tile_rows) * phases.count() * p.groups *
           tiles_over(p.group_out(), tile_columns);
  }
};

struct ActivationBlock {
  PhaseAxis phase[kAxes];
  int64_t group, first_row, rows, first_column;  // rows counts the whole phase

  __device__ ActivationBlock(const ConvProblem& p, const ActivationPhases& all, int tile_rows,
                             int tile_columns) {
    // Blocks that read the same rows of x are neighbours, so that they find them in the cache.
    int64_t block = blockIdx.x;
    const int64_t column_tiles = tiles_over(p.group_out(), tile_columns);
    first_column = block % column_tiles * tile_columns;
    block /= column_tiles;
    group = block % p.groups;
    block /= p.groups;
    rows = p.batch;
#pragma unroll
    for (int a = kAxes - 1; a >= 0; --a) {
      const int64_t phases = all.phases.axis[a].count();
      phase[a] = all.phases.axis[a][block % phases];
      block /= phases;
      rows *= phase[a].outputs;
    }
    first_row = block * tile_rows;
    if (all.trims && first_row < rows) trim(p, first_row + tile_rows < rows ? first_row + tile_rows : rows);
  }

  // Returns n and o' of a row.
  __device__ Coord coord(int64_t row) const {
    return coord_of(row, phase[0].outputs, phase[1].outputs, phase[2].outputs);
  }
  // Returns the flat index of output o' of image n.
  __device__ int64_t output_at(const ConvProblem& p, const Coord& o) const {
    int64_t flat = o.n;
#pragma unroll
    for (int a = 0; a < kAxes; ++a)
      flat = flat * p.axis[a].output + phase[a].o_first + o.at[a] * phase[a].o_step;
    return flat;
  }

 private:
  // Keeps only the taps that the rows before `end` see. The rows' outputs span a range along an axis only if
  // they agree along all axes further out; otherwise they span the whole axis.
  __device__ void trim(const ConvProblem& p, int64_t end) {
    const Coord first = coord(first_row), last = coord(end - 1);
    bool alike = first.n == last.n;
#pragma unroll
    for (int a = 0; a < kAxes; ++a) {
      phase[a].keep_taps_of(p.axis[a].input, alike ? first.at[a] : 0,
                            alike ? last.at[a] + 1 : phase[a].outputs);
      alike = alike && first.at[a] == last.at[a];
    }
  }
};

}  // namespace convgrad::cuda
