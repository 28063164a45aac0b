#include "cpu_src/microkernels/avx512_bf16/pair_rows.h"

#include <immintrin.h>

namespace convgrad::cpu::avx512_bf16 {
namespace {

constexpr int64_t kPairs = 16;  // of a vector

// Zips the first `count` numbers, at most 16.
inline __attribute__((always_inline)) void zip_some(const BFloat16* first, const BFloat16* second,
                                                    BFloat16Pair* dst, int64_t count) {
  const auto lanes = static_cast<__mmask16>((1u << count) - 1u);
  __m512i pairs = _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(lanes, first));
  if (second != nullptr) {
    const __m512i high = _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(lanes, second));
    pairs = _mm512_or_si512(pairs, _mm512_slli_epi32(high, 16));
  }
  _mm512_mask_storeu_epi32(dst, lanes, pairs);
}

}  // namespace

void zip_rows(const BFloat16* first, const BFloat16* second, int64_t from_step, BFloat16Pair* dst,
              int64_t to_step, int64_t rows, int64_t length) {
  for (int64_t row = 0; row < rows; ++row, first += from_step, dst += to_step) {
    int64_t at = 0;
    for (; at + kPairs <= length; at += kPairs) {
      const void* const low = first + at;
      __m512i pairs = _mm512_cvtepu16_epi32(_mm256_loadu_si256(static_cast<const __m256i*>(low)));
      if (second != nullptr) {
        const void* const high = second + at;
        pairs = _mm512_or_si512(
            pairs, _mm512_slli_epi32(
                       _mm512_cvtepu16_epi32(_mm256_loadu_si256(static_cast<const __m256i*>(high))), 16));
      }
      _mm512_storeu_si512(dst + at, pairs);
    }
    if (at < length)
      zip_some(first + at, second == nullptr ? nullptr : second + at, dst + at, length - at);
    if (second != nullptr) second += from_step;
  }
}

void copy_pairs(const BFloat16* src, int64_t from_step, BFloat16Pair* dst, int64_t to_step, int64_t rows,
                int64_t length) {
  constexpr int64_t kNumbers = 2 * kPairs;
  for (int64_t row = 0; row < rows; ++row, src += from_step, dst += to_step) {
    int64_t at = 0;
    for (; at + kNumbers <= length; at += kNumbers)
      _mm512_storeu_si512(dst + at / 2, _mm512_loadu_si512(src + at));
    if (at == length) continue;
    const int64_t left = length - at;
    const auto numbers = static_cast<__mmask32>((1u << left) - 1u);
    const auto pairs = static_cast<__mmask16>((1u << ((left + 1) / 2)) - 1u);
    _mm512_mask_storeu_epi32(dst + at / 2, pairs, _mm512_maskz_loadu_epi16(numbers, src + at));
  }
}

}  // namespace convgrad::cpu::avx512_bf16
