// Sums rows for the bias gradient.
#pragma once

#include <cstdint>

#include "common_src/number.h"
#include "cpu_src/isa.h"

namespace convgrad::cpu {

inline constexpr int64_t kSummedRows = 8;    // at most, per call
inline constexpr int64_t kSummedWidth = 16;  // divides a row's length, for every instruction set

// Adds to sum[at] the sum over `count` rows, `width` apart, of rows[at], for at < width.
template <typename T>
using AddRowSum = void (*)(const T* rows, int64_t count, int64_t width, Sum<T>* sum);

CONVGRAD_PER_ISA(template <typename T> AddRowSum<T> add_row_sum())

}  // namespace convgrad::cpu
