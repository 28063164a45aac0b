// Converts rows of numbers between their stored type and the type of sums.
#pragma once

#include <cstdint>
#include <type_traits>

#include "common_src/epilogue.h"
#include "common_src/number.h"
#include "cpu_src/bf16_dots.h"
#include "cpu_src/isa.h"

namespace convgrad::cpu {

// Each function handles `rows` rows of `length` numbers, `from_step` and `to_step` elements apart.
template <typename T>
struct RowConversions {
  void (*widen)(const T* src, int64_t from_step, Sum<T>* dst, int64_t to_step, int64_t rows, int64_t length);
  void (*narrow)(const Sum<T>* src, int64_t from_step, T* dst, int64_t to_step, int64_t rows, int64_t length);
  // Computes dst[row] += src[row].
  void (*add)(const Sum<T>* src, int64_t from_step, Sum<T>* dst, int64_t to_step, int64_t rows,
              int64_t length);
  // Applies the epilogue to sums whose rows are channels from `first` on.
  void (*finish)(const Epilogue& epilogue, int64_t first, Sum<T>* sums, int64_t step, int64_t rows,
                 int64_t length);
};

CONVGRAD_PER_ISA(template <typename T> const RowConversions<T>& row_conversions())
namespace avx512_bf16 {
template <typename T>
const RowConversions<T>& row_conversions();
}

// Returns those of an instruction set.
template <typename T>
const RowConversions<T>& row_conversions_of(Isa isa) {
  if constexpr (kHasBf16Dots && std::is_same_v<T, BFloat16>) {
    if (isa == Isa::kAvx512Bf16) return avx512_bf16::row_conversions<T>();
  }
  return CONVGRAD_FOR_ISA(isa, row_conversions<T>());
}

}  // namespace convgrad::cpu
