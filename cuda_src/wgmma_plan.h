// Which problems the wgmma kernels serve, and how they cut them: pure functions of the problem.
#pragma once

#include <cstdint>

#include "cuda_src/plan.h"
#include "cuda_src/split.h"
#include "ffi_src/problem.h"

namespace convgrad::cuda {

inline constexpr int kWgmmaRows = 128;  // of a tile: 64 for each of two warpgroups
inline constexpr int kWgmmaDepth = 64;  // of a slice: a line of 128 bytes
inline constexpr int kWgmmaPhases = 8;  // at most: a stride of 2 along three axes
inline constexpr char kWgmmaServes[] =
    "devices of compute capability 9.0 and 16-bit numbers, with channels in multiples of 8 (of 64 in "
    "groups), "
    "strides and dilations up to 8 and windows near enough to their image";

bool wgmma_serves(const ConvProblem&, ConvOp);

// Columns of a tile, 64, 128 or 256, for `row_tiles` tiles of kWgmmaRows by `columns` columns in all.
int wgmma_columns(int64_t row_tiles, int64_t columns);

// Of wgrad: 64 rows of the filter's one tap make a chunk, two chunks a tile.
int64_t wgmma_filter_chunks(const ConvProblem&);
Split wgmma_filter_split(const ConvProblem&);

}  // namespace convgrad::cuda
