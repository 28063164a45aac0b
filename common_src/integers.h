// Quotients of integers, rounded down or up, and a test that products stay below a power of two.
#pragma once

#include <cstdint>
#include <initializer_list>

#include "common_src/problem.h"

namespace convgrad {

// Returns the greatest integer <= a / b, for b > 0.
CONVGRAD_HD constexpr int64_t divide_down(int64_t a, int64_t b) { return a / b - (a % b < 0); }

// Returns the least integer >= a / b, for b > 0.
CONVGRAD_HD constexpr int64_t divide_up(int64_t a, int64_t b) { return a / b + (a % b > 0); }

// Returns how many tiles cover an extent >= 0. Unlike divide_up() it needs only a division, in the operands'
// own type, which on a GPU is much faster with 32 bits.
template <typename Extent, typename Tile>
CONVGRAD_HD constexpr auto tiles_over(Extent extent, Tile tile) {
  return (extent + tile - 1) / tile;
}

// Returns how many steps cover a distance >= 0. Most steps are 1, and a 64-bit division is a subroutine on a
// GPU.
CONVGRAD_HD constexpr int64_t steps_over(int64_t distance, int64_t step) {
  return step == 1 ? distance : tiles_over(distance, step);
}

// Reports whether the product of the factors' magnitudes is less than 2^bits, for bits <= 31. No intermediate
// product overflows.
constexpr bool fits_bits(int bits, std::initializer_list<int64_t> factors) {
  const int64_t most = int64_t{1} << bits;
  bool has_zero = false;
  for (const int64_t factor : factors) has_zero = has_zero || factor == 0;
  if (has_zero) return true;
  int64_t product = 1;
  for (const int64_t factor : factors) {
    if (factor <= -most || factor >= most) return false;
    product *= factor < 0 ? -factor : factor;
    if (product >= most) return false;
  }
  return true;
}

}  // namespace convgrad
