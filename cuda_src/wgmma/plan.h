// Decides which problems the wgmma kernels serve, and how they cut them: pure functions of the problem.
#pragma once

#include <cstdint>

#include "common_src/problem.h"
#include "cuda_src/plan.h"
#include "cuda_src/split.h"

namespace convgrad::cuda {

inline constexpr int kWgmmaRows = 128;  // of a tile: 64 for each of two warpgroups
inline constexpr int kWgmmaLineBytes = 128;
// Returns the depth of a slice: one line.
inline constexpr int wgmma_depth(DType dtype) { return kWgmmaLineBytes / static_cast<int>(bytes_of(dtype)); }
template <typename Stored>
inline constexpr int kWgmmaDepth = kWgmmaLineBytes / sizeof(Stored);
inline constexpr int kWgmmaPhases = 9;  // at most: a stride of 3 along two axes, or of 2 along three
inline constexpr char kWgmmaServes[] =
    "devices of compute capability 9.0, and there 16-bit numbers, and float32 as TF32 in fprop and dgrad, "
    "with channels that fill 16 bytes (in groups: 128), strides up to 8 and windows that begin near their "
    "image";

bool wgmma_serves(Op, const ConvProblem&, bool tf32);

// Returns the columns of a tile, 64, 128 or 256, for `row_tiles` tiles of kWgmmaRows rows and `columns`
// columns in all.
int wgmma_columns(int64_t row_tiles, int64_t columns);

// For wgrad: the number of chunks. A chunk is 64 rows of one tap of the filter; a tile has two chunks.
int64_t wgmma_filter_chunks(const ConvProblem&);
Split wgmma_filter_split(const ConvProblem&);

}  // namespace convgrad::cuda
