#include "cpu_src/microkernels/avx512_bf16/pair_rows.h"

#include <immintrin.h>

#include <algorithm>

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
  constexpr int64_t kNumbers = 2 * kPairs;  // of a vector
  // Number j of the first vector, then number j of the second, whose indices begin at 32.
  const __m512i low = _mm512_add_epi16(
                    _mm512_cvtepu8_epi16(_mm256_set1_epi16(32 << 8)),
                    _mm512_srli_epi16(_mm512_cvtepu8_epi16(_mm256_setr_epi8(
                                          0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18,
                                          19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31)),
                                      1)),
                high = _mm512_add_epi16(low, _mm512_set1_epi16(16));
  for (int64_t row = 0; row < rows; ++row, first += from_step, dst += to_step) {
    int64_t at = 0;
    for (; at + kNumbers <= length; at += kNumbers) {
      const __m512i a = _mm512_loadu_si512(first + at),
                    b = second == nullptr ? _mm512_setzero_si512() : _mm512_loadu_si512(second + at);
      _mm512_storeu_si512(dst + at, _mm512_permutex2var_epi16(a, low, b));
      _mm512_storeu_si512(dst + at + kPairs, _mm512_permutex2var_epi16(a, high, b));
    }
    for (; at < length; at += kPairs)
      zip_some(first + at, second == nullptr ? nullptr : second + at, dst + at,
               std::min(length - at, kPairs));
    if (second != nullptr) second += from_step;
  }
}

void copy_pairs(const BFloat16* src, int64_t from_step, BFloat16Pair* dst, int64_t to_step, int64_t rows,
                int64_t length, bool first_is_zero) {
  constexpr int64_t kNumbers = 2 * kPairs;
  for (int64_t row = 0; row < rows; ++row, src += from_step, dst += to_step) {
    __mmask32 all = first_is_zero ? ~1u : ~0u;
    for (int64_t at = 0; at < length; at += kNumbers, all = ~0u) {
      const int64_t count = std::min(length - at, kNumbers);
      const __mmask32 numbers = all & (~0u >> (kNumbers - count));
      const auto pairs = static_cast<__mmask16>((1u << ((count + 1) / 2)) - 1u);
      _mm512_mask_storeu_epi32(dst + at / 2, pairs, _mm512_maskz_loadu_epi16(numbers, src + at));
    }
  }
}

}  // namespace convgrad::cpu::avx512_bf16
