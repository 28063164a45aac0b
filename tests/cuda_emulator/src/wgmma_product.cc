#include "wgmma_product.h"

#include <cstddef>

#include "ffi_src/number.h"
#include "wgmma_operand.h"

namespace cuda_emulator {
namespace {

constexpr unsigned kSide = 8;  // columns that are summed side by side

float number(bool f16, uint16_t bits) {
  return f16 ? convgrad::widen(convgrad::Float16{bits}) : convgrad::widen(convgrad::BFloat16{bits});
}

}  // namespace

void poison_differences(std::vector<uint16_t>& numbers, const std::vector<uint16_t>& earlier) {
  for (size_t i = 0; i < numbers.size(); ++i)
    if (numbers[i] != earlier[i]) numbers[i] = 0xffff;
}

void add_product(bool f16, const std::vector<uint16_t>& a, const std::vector<uint16_t>& b, unsigned columns,
                 std::vector<float>& sums) {
  const size_t rows = sums.size() / columns;
  std::vector<float> wide_a(a.size()), b_by_depth(b.size());
  for (size_t i = 0; i < a.size(); ++i) wide_a[i] = number(f16, a[i]);
  for (size_t n = 0; n < columns; ++n)
    for (size_t k = 0; k < kWgmmaDepth; ++k)
      b_by_depth[k * columns + n] = number(f16, b[n * kWgmmaDepth + k]);
  for (size_t m = 0; m < rows; ++m)
    for (size_t n = 0; n < columns; n += kSide) {
      float some[kSide];
      for (size_t i = 0; i < kSide; ++i) some[i] = sums[m * columns + n + i];
      for (size_t k = 0; k < kWgmmaDepth; ++k)
        for (size_t i = 0; i < kSide; ++i)  // the product is exact, fused or not
          some[i] += wide_a[m * kWgmmaDepth + k] * b_by_depth[k * columns + n + i];
      for (size_t i = 0; i < kSide; ++i) sums[m * columns + n + i] = some[i];
    }
}

}  // namespace cuda_emulator
