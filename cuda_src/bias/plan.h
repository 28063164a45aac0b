// How the bias gradient's sum over rows is split among blocks: pure functions of the problem, so that the
// order of the sum is the same on every device and wherever in memory dy lies.
#pragma once

#include <cstdint>

#include "common_src/problem.h"
#include "cuda_src/split.h"

namespace convgrad::cuda {

Split reference_bgrad_split(const BiasProblem&);

inline constexpr int kBgradThreads = 256;
inline constexpr int kVectorBytes = 16;  // of dy, that a thread takes at once

// dy as the vector kernel sees it. A vector of 16 bytes has always the same channels where it lies at the
// same place of a line of lcm(channels, lanes) numbers, however few or odd the channels are: so dy is lines,
// and vectors at one place of them are added up. `fold` rows of dy are one line.
//
// A block adds a tile of `columns` vectors over one part of the lines, `at_once` lines at a time.
struct BgradTiles {
  int64_t line;   // numbers
  int64_t fold;   // rows of dy in a line
  int64_t lines;  // whole ones; the rest of dy is shorter
  int columns, at_once;
  int64_t tiles;  // of columns, side by side in a line
  Split split;    // of the lines

  bool in_one_step() const { return split.parts == 1 && fold == 1; }
};
// `lanes` numbers a vector, in tiles of at most `most_columns` vectors and at most `most_parts` parts.
BgradTiles bgrad_tiles(int64_t rows, int64_t channels, int lanes, int most_columns, int64_t most_parts);
// Of the problem itself. Its sums, one line for each part, are rows of a second and shorter problem.
BgradTiles bgrad_tiles(const BiasProblem&);
BgradTiles bgrad_tiles_of_parts(const BiasProblem&);

}  // namespace convgrad::cuda
