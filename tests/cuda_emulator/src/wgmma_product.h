// The arithmetic of wgmma. Matrices are vectors, row by row.
#pragma once

#include <cstdint>
#include <vector>

#include "cuda_emulator/wgmma.h"

namespace cuda_emulator {

// Returns NaN for a number that was read once as one value and once as another.
void poison_differences(std::vector<uint32_t>& numbers, const std::vector<uint32_t>& earlier);

// Computes sums[m][n] += a[m][k] b[n][k] for all of the depth, in its order.
void add_product(WgmmaType, const std::vector<uint32_t>& a, const std::vector<uint32_t>& b, unsigned columns,
                 std::vector<float>& sums);

}  // namespace cuda_emulator
