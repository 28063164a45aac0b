// The numbers that kernels are tested with, and the errors that their sums may have.
#pragma once

#include <cmath>
#include <cstdint>
#include <limits>
#include <type_traits>
#include <vector>

#include "common_src/number.h"

namespace convgrad::test {

template <typename T>
inline constexpr DType kDType = std::is_same_v<T, float>      ? DType::kF32
                                : std::is_same_v<T, double>   ? DType::kF64
                                : std::is_same_v<T, BFloat16> ? DType::kBF16
                                                              : DType::kF16;

inline const char* dtype_name(DType dtype) {
  const char* const names[] = {"float32", "float64", "bfloat16", "float16"};
  return names[static_cast<int>(dtype)];
}

// Return the distance from 1 to the next number, and from 0 to the next number.
template <typename T>
constexpr double epsilon() {
  if constexpr (std::is_same_v<T, BFloat16>) return 0x1p-7;
  if constexpr (std::is_same_v<T, Float16>) return 0x1p-10;
  if constexpr (std::is_floating_point_v<T>) return static_cast<double>(std::numeric_limits<T>::epsilon());
}
template <typename T>
constexpr double smallest() {
  if constexpr (std::is_same_v<T, BFloat16>) return 0x1p-133;
  if constexpr (std::is_same_v<T, Float16>) return 0x1p-24;
  if constexpr (std::is_floating_point_v<T>) return static_cast<double>(std::numeric_limits<T>::denorm_min());
}

// Returns the error allowed for a stored sum of `length` rounded products: four times the square root of as
// many roundings of the sum of absolute values (tests/support/tolerance.py gives the reason), plus one
// rounding to the stored type.
template <typename T>
double bound(int64_t length, double sum_of_abs, double exact) {
  const double roundings = 4 * std::sqrt(static_cast<double>(length) + 1) * epsilon<Sum<T>>();
  return roundings * sum_of_abs + epsilon<T>() / 2 * std::abs(exact) + smallest<T>();
}

// Numbers in [-1, 1) that depend on the seed alone (splitmix64).
class Random {
 public:
  explicit Random(uint64_t seed) : state_(seed) {}

  double next() {
    state_ += 0x9e3779b97f4a7c15u;
    uint64_t mixed = state_;
    mixed = (mixed ^ (mixed >> 30)) * 0xbf58476d1ce4e5b9u;
    mixed = (mixed ^ (mixed >> 27)) * 0x94d049bb133111ebu;
    return static_cast<double>((mixed ^ (mixed >> 31)) >> 11) * 0x1p-52 - 1;
  }

 private:
  uint64_t state_;
};

}  // namespace convgrad::test
