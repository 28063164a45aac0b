// The arithmetic of wgmma.
#pragma once

#include <cstdint>
#include <vector>

namespace cuda_emulator {

// What was read once as one number and once as another is neither: NaN in bf16 and f16.
void poison_differences(std::vector<uint16_t>& numbers, const std::vector<uint16_t>& earlier);

// sums[m][n] += a[m][k] b[n][k] for all of the depth in its order, row by row, 16 deep.
void add_product(bool f16, const std::vector<uint16_t>& a, const std::vector<uint16_t>& b, unsigned columns,
                 std::vector<float>& sums);

}  // namespace cuda_emulator
