#include "cuda_src/bias/plan.h"

#include <algorithm>
#include <numeric>

#include "common_src/integers.h"
#include "cuda_src/plan.h"

namespace convgrad::cuda {
Split reference_bgrad_split(const BiasProblem& p) {
  // About as many parts as terms per part, where the two sums together are shortest and their rounding error
  // is least. 64 rows need no split.
  int64_t length = 64;
  while (length < p.rows / length) length *= 2;
  return {std::max<int64_t>(divide_up(p.rows, length), 1), length};
}

BgradTiles bgrad_tiles(int64_t rows, int64_t channels, int lanes, int most_columns, int64_t most_parts) {
  BgradTiles t;
  t.line = std::lcm(channels, static_cast<int64_t>(lanes));
  t.fold = t.line / channels;
  t.lines = rows / t.fold;
  const int64_t vectors = t.line / lanes;
  t.columns = static_cast<int>(std::min<int64_t>(vectors, most_columns));
  t.at_once = kBgradThreads / t.columns;
  t.tiles = divide_up(vectors, t.columns);
  // A part's line of sums is written and read again, in f32 even if dy has 16 bits; 128 lines of dy outweigh
  // that. At least 8 vectors per thread keep its loads in flight.
  const int64_t shortest = std::max<int64_t>(128, 8 * t.at_once);
  const int64_t wanted =
      std::clamp<int64_t>(t.lines / shortest, 1, std::max<int64_t>(most_parts / t.tiles, 1));
  t.split.length = std::max<int64_t>(divide_up(divide_up(t.lines, wanted), t.at_once), 1) * t.at_once;
  t.split.parts = std::max<int64_t>(divide_up(t.lines, t.split.length), 1);
  return t;
}

BgradTiles bgrad_tiles(const BiasProblem& p) {
  // Tiles of 512 bytes: a warp reads its part of one line. 512 blocks give the largest devices a few per
  // multiprocessor, all resident at once, and no more sums than the second step adds in microseconds.
  constexpr int kColumns = 32;
  constexpr int64_t kBlocks = 512;
  return bgrad_tiles(p.rows, p.channels, static_cast<int>(kVectorBytes / bytes_of(p.dtype)), kColumns,
                     kBlocks);
}

BgradTiles bgrad_tiles_of_parts(const BiasProblem& p) {
  // Single numbers, so that a line holds any number of channels, in tiles of one sector: many blocks, and
  // many threads per channel.
  const BgradTiles first = bgrad_tiles(p);
  return bgrad_tiles(first.split.parts * first.fold, p.channels, 1, 8, 1);
}

int64_t bgrad_workspace_bytes(const BiasProblem& p) {
  // Enough for either kernel, because the size is asked for without a kernel's name.
  if (p.channels == 0) return 0;
  const BgradTiles tiles = bgrad_tiles(p);
  const int64_t vector_sums = tiles.in_one_step() ? 0 : tiles.split.parts * tiles.line;
  const int64_t parts = reference_bgrad_split(p).parts, reference_sums = parts == 1 ? 0 : parts * p.channels;
  return std::max(vector_sums, reference_sums) * bytes_of_sum(p.dtype);
}

}  // namespace convgrad::cuda
