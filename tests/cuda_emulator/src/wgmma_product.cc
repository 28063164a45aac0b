#include "wgmma_product.h"

#include <cstddef>

#include "common_src/number.h"
#include "cuda_emulator/math.h"

namespace cuda_emulator {
namespace {

constexpr unsigned kSide = 8;  // columns that are summed together

float number(WgmmaType type, uint32_t bits) {
  switch (type) {
    case WgmmaType::kBF16:
      return convgrad::widen(convgrad::BFloat16{static_cast<uint16_t>(bits)});
    case WgmmaType::kF16:
      return convgrad::widen(convgrad::Float16{static_cast<uint16_t>(bits)});
    case WgmmaType::kTF32:
      break;
  }
  return bits_as<float>(bits & ~0x1fffu);
}

}  // namespace

void poison_differences(std::vector<uint32_t>& numbers, const std::vector<uint32_t>& earlier) {
  for (size_t i = 0; i < numbers.size(); ++i)
    if (numbers[i] != earlier[i]) numbers[i] = ~0u;
}

void add_product(WgmmaType type, const std::vector<uint32_t>& a, const std::vector<uint32_t>& b,
                 unsigned columns, std::vector<float>& sums) {
  const size_t rows = sums.size() / columns, depth = a.size() / rows;
  std::vector<float> wide_a(a.size()), b_by_depth(b.size());
  for (size_t i = 0; i < a.size(); ++i) wide_a[i] = number(type, a[i]);
  for (size_t n = 0; n < columns; ++n)
    for (size_t k = 0; k < depth; ++k) b_by_depth[k * columns + n] = number(type, b[n * depth + k]);
  for (size_t m = 0; m < rows; ++m)
    for (size_t n = 0; n < columns; n += kSide) {
      float some[kSide];
      for (size_t i = 0; i < kSide; ++i) some[i] = sums[m * columns + n + i];
      for (size_t k = 0; k < depth; ++k)
        for (size_t i = 0; i < kSide; ++i)  // the product is exact, fused or not
          some[i] += wide_a[m * depth + k] * b_by_depth[k * columns + n + i];
      for (size_t i = 0; i < kSide; ++i) sums[m * columns + n + i] = some[i];
    }
}

}  // namespace cuda_emulator
