// The tile of a block of the tiled kernels: a matrix product of 64 rows by 64 columns, 16 deep at a time.
#pragma once

namespace convgrad::cuda {

inline constexpr int kTileRows = 64;
inline constexpr int kTileColumns = 64;
inline constexpr int kTileDepth = 16;

}  // namespace convgrad::cuda
