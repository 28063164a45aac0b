// What the tiles of tiled/ multiply: vectors of numbers, or of bf16 pairs.
#pragma once

#include "cpu_src/bf16_dots.h"
#include "cpu_src/microkernels/simd.h"

namespace convgrad::cpu::CONVGRAD_ISA {

// A vector of as many X as it has lanes of their sums.
template <typename X>
struct Operand {
  using S = TileSum<X>;
  Vec<S> v;

  static CONVGRAD_INLINE Operand load(const X* src) { return {CONVGRAD_ISA::load(src)}; }
  static CONVGRAD_INLINE Operand broadcast(const X* src) { return {CONVGRAD_ISA::broadcast(*src)}; }
};

template <typename X>
CONVGRAD_INLINE void add_product(Vec<TileSum<X>>& sum, Operand<X> a, Operand<X> b) {
  sum += a.v * b.v;
}

// A vector of numbers that are neighbours in the sum (dot_tile.cc).
template <typename T>
struct AlongSum {
  using X = Operand<Sum<T>>;
  static constexpr int numbers = kLanes<Sum<T>>;
  static constexpr bool kConverts = sizeof(T) == 2;

  static CONVGRAD_INLINE X load(const T* src) { return {CONVGRAD_ISA::load(src)}; }
  static CONVGRAD_INLINE X load_some(const T* src, int64_t count) {
    return {CONVGRAD_ISA::load_some(src, count)};
  }
};

#if defined(CONVGRAD_BF16_DOTS)

template <>
struct Operand<BFloat16Pair> {
  __m512i v;

  static CONVGRAD_INLINE Operand load(const BFloat16Pair* src) { return {_mm512_loadu_si512(src)}; }
  static CONVGRAD_INLINE Operand broadcast(const BFloat16Pair* src) {
    int bits;
    __builtin_memcpy(&bits, src, sizeof bits);
    return {_mm512_set1_epi32(bits)};
  }
  // Returns the pairs with zeros for their second numbers.
  CONVGRAD_INLINE Operand first() const { return {_mm512_and_si512(v, _mm512_set1_epi32(0xffff))}; }
};

template <>
CONVGRAD_INLINE void add_product(Vec<float>& sum, Operand<BFloat16Pair> a, Operand<BFloat16Pair> b) {
  sum = (Vec<float>)_mm512_dpbf16_ps((__m512)sum, (__m512bh)a.v, (__m512bh)b.v);
}

template <>
struct AlongSum<BFloat16> {
  using X = Operand<BFloat16Pair>;
  static constexpr int numbers = 2 * kLanes<float>;
  static constexpr bool kConverts = false;

  static CONVGRAD_INLINE X load(const BFloat16* src) { return {_mm512_loadu_si512(src)}; }
  static CONVGRAD_INLINE X load_some(const BFloat16* src, int64_t count) {
    return {_mm512_maskz_loadu_epi16(static_cast<__mmask32>((1u << count) - 1u), src)};
  }
};

#endif

}  // namespace convgrad::cpu::CONVGRAD_ISA
