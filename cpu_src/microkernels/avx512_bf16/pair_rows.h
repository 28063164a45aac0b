// Makes bf16 pairs of rows of numbers.
#pragma once

#include <cstdint>

#include "cpu_src/bf16_dots.h"

namespace convgrad::cpu::avx512_bf16 {

// Computes dst[j] = {first[j], second[j]} for `rows` rows of `length` numbers, whose beginnings are from_step
// and to_step apart. If `second` is null, the second numbers are zero.
void zip_rows(const BFloat16* first, const BFloat16* second, int64_t from_step, BFloat16Pair* dst,
              int64_t to_step, int64_t rows, int64_t length);

// Copies rows of `length` numbers to rows of pairs of neighbours. The last pair of an odd length is completed
// by zero. If `first_is_zero`, the first number of each row is not read, and zero.
void copy_pairs(const BFloat16* src, int64_t from_step, BFloat16Pair* dst, int64_t to_step, int64_t rows,
                int64_t length, bool first_is_zero);

}  // namespace convgrad::cpu::avx512_bf16
