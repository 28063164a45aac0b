// Storage types and the types that sums run in: bf16 and f16 are stored and computed in f32; f32 and f64 are
// both.
#pragma once

#include <cstdint>
#include <cstring>

#include "common_src/problem.h"

#if defined(__CUDA_ARCH__)
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#endif

namespace convgrad {

struct BFloat16 {
  uint16_t bits;
};
struct Float16 {
  uint16_t bits;
};

namespace detail {
template <typename To, typename From>
CONVGRAD_HD inline To bit_cast(From from) {
  static_assert(sizeof(To) == sizeof(From));
  To to;
  memcpy(&to, &from, sizeof to);
  return to;
}
}  // namespace detail

// Widens a stored number to the type that sums run in.
CONVGRAD_HD inline float widen(float v) { return v; }
CONVGRAD_HD inline double widen(double v) { return v; }
CONVGRAD_HD inline float widen(BFloat16 v) {
  return detail::bit_cast<float>(static_cast<uint32_t>(v.bits) << 16);
}
CONVGRAD_HD inline float widen(Float16 v) {
#if defined(__CUDA_ARCH__)
  return __half2float(__ushort_as_half(v.bits));
#else
  const uint32_t sign = static_cast<uint32_t>(v.bits & 0x8000u) << 16;
  const uint32_t magnitude = v.bits & 0x7fffu;
  if (magnitude >= 0x7c00u)  // infinity or NaN
    return detail::bit_cast<float>(sign | 0x7f800000u | ((magnitude & 0x3ffu) << 13));
  if (magnitude >= 0x0400u)  // normal: the exponent's bias goes from 15 to 127
    return detail::bit_cast<float>(sign | ((magnitude << 13) + (112u << 23)));
  // Subnormal: a multiple of 2^-24. Computed without a subnormal f32, which XLA's threads flush to zero.
  const float value = static_cast<float>(magnitude) * 0x1p-24f;
  return sign ? -value : value;
#endif
}

// Rounds a sum to its stored type, to nearest, ties to even.
template <typename Stored>
struct Narrow;
template <>
struct Narrow<float> {
  CONVGRAD_HD static float from(float v) { return v; }
};
template <>
struct Narrow<double> {
  CONVGRAD_HD static double from(double v) { return v; }
};
template <>
struct Narrow<BFloat16> {
  CONVGRAD_HD static BFloat16 from(float v) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
    // One instruction; the eight below would be too many for a kernel as fast as memory.
    return {__bfloat16_as_ushort(__float2bfloat16_rn(v))};
#else
    const uint32_t bits = detail::bit_cast<uint32_t>(v);
    if ((bits & 0x7fffffffu) > 0x7f800000u)  // NaN: keep it quiet, because rounding could make it infinite
      return {static_cast<uint16_t>((bits >> 16) | 0x40u)};
    return {static_cast<uint16_t>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16)};
#endif
  }
};
template <>
struct Narrow<Float16> {
  CONVGRAD_HD static Float16 from(float v) {
#if defined(__CUDA_ARCH__)
    return {__half_as_ushort(__float2half_rn(v))};
#else
    const uint32_t bits = detail::bit_cast<uint32_t>(v);
    const uint16_t sign = static_cast<uint16_t>((bits >> 16) & 0x8000u);
    const uint32_t magnitude = bits & 0x7fffffffu;
    if (magnitude > 0x7f800000u) return {static_cast<uint16_t>(sign | 0x7e00u)};
    if (magnitude >= 0x477ff000u)  // 65520 and above round to infinity
      return {static_cast<uint16_t>(sign | 0x7c00u)};
    if (magnitude < 0x38800000u) {
      // The result is subnormal: adding 0.5 rounds to a multiple of 2^-24 and leaves it in the low bits.
      const float shifted = detail::bit_cast<float>(magnitude) + 0.5f;
      return {static_cast<uint16_t>(sign | (detail::bit_cast<uint32_t>(shifted) - 0x3f000000u))};
    }
    const uint32_t rounded = magnitude + 0xfffu + ((magnitude >> 13) & 1u);
    return {static_cast<uint16_t>(sign | ((rounded - 0x38000000u) >> 13))};
#endif
  }
};

template <typename Stored>
CONVGRAD_HD inline Stored narrow(decltype(widen(Stored{})) v) {
  return Narrow<Stored>::from(v);
}

// The type in which sums over Stored run.
template <typename Stored>
using Sum = decltype(widen(Stored{}));

// Stores a sum as number `at` of a result: rounded to Stored, or unrounded if the operands have 16 bits and
// the result is f32.
template <typename Stored>
CONVGRAD_HD inline void store_sum(Stored* result, int64_t at, Sum<Stored> sum, bool unrounded) {
  if constexpr (sizeof(Stored) < sizeof(Sum<Stored>)) {
    if (unrounded) {
      reinterpret_cast<Sum<Stored>*>(result)[at] = sum;
      return;
    }
  }
  result[at] = narrow<Stored>(sum);
}

}  // namespace convgrad
