// The block tile of the tiled kernels: a matrix product of 64 rows by 64 columns, 16 deep at a time;
// and for all kernels, how many tiles cover an extent.
#pragma once

#include <cstdint>

#include "common_src/problem.h"

namespace convgrad::cuda {

inline constexpr int kTileRows = 64;
inline constexpr int kTileColumns = 64;
inline constexpr int kTileDepth = 16;

CONVGRAD_HD inline constexpr int64_t tiles_over(int64_t extent, int64_t tile) {
  return (extent + tile - 1) / tile;
}

}  // namespace convgrad::cuda
