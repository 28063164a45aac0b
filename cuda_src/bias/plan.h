// Splits the bias gradient's sum over rows among blocks: pure functions of the problem, so that the order of
// the sum is the same on every device and for every address of dy.
#pragma once

#include <cstdint>

#include "common_src/problem.h"
#include "cuda_src/split.h"

namespace convgrad::cuda {

Split reference_bgrad_split(const BiasProblem&);

inline constexpr int kBgradThreads = 256;
inline constexpr int kVectorBytes = 16;  // of dy, per load of a thread

// The vector kernel's view of dy. In lines of lcm(channels, lanes) numbers, the vectors at one place of every
// line hold the same channels, however few or odd the channels are. So dy is read as lines, and the vectors
// at one place of them are added. `fold` rows of dy make one line.
//
// A block adds a tile of `columns` vectors over one part of the lines, `at_once` lines at a time.
struct BgradTiles {
  int64_t line;   // numbers
  int64_t fold;   // rows of dy in a line
  int64_t lines;  // whole lines; the rest of dy is shorter than one
  int columns, at_once;
  int64_t tiles;  // tiles of columns in a line
  Split split;    // splits the lines

  bool in_one_step() const { return split.parts == 1 && fold == 1; }
};
// Cuts rows into vectors of `lanes` numbers, tiles of at most `most_columns` vectors, and at most
// `most_parts` parts.
BgradTiles bgrad_tiles(int64_t rows, int64_t channels, int lanes, int most_columns, int64_t most_parts);
// Cut the problem itself, and the second, shorter problem whose rows are its partial sums, one line per part.
BgradTiles bgrad_tiles(const BiasProblem&);
BgradTiles bgrad_tiles_of_parts(const BiasProblem&);

}  // namespace convgrad::cuda
