// Products of bf16 operands as dot products of pairs (AVX512-BF16): one instruction multiplies both numbers
// of 16 pairs and adds them to 16 sums of f32, twice as much as a multiply-add of f32.
//
// A pair is two neighbours of the dimension that is summed over: source channels in fprop and dgrad,
// positions in wgrad. The instruction adds the second product, then the first, and rounds each sum to f32, to
// nearest. It reads subnormal numbers as zero and writes zero for a subnormal sum, whatever the thread's
// settings are.
#pragma once

#include "common_src/number.h"
#include "common_src/problem.h"
#include "cpu_src/isa.h"

namespace convgrad::cpu {

struct BFloat16Pair {
  BFloat16 first, second;
};

// The type of the sums of a tile whose operands are X: numbers in the type of their sums, or pairs.
template <typename X>
struct TileSumOf {
  using type = X;
};
template <>
struct TileSumOf<BFloat16Pair> {
  using type = float;
};
template <typename X>
using TileSum = typename TileSumOf<X>::type;

#if defined(__x86_64__)
inline constexpr bool kHasBf16Dots = true;
#else
inline constexpr bool kHasBf16Dots = false;
#endif

// Returns the instruction set that convolutions of this dtype run on: no other dtype has code of its own.
inline Isa isa_of(DType dtype, Isa isa) {
  return isa == Isa::kAvx512Bf16 && dtype != DType::kBF16 ? Isa::kAvx512 : isa;
}

// Reports whether the instruction set has dot products for this dtype.
inline bool has_dots(DType dtype, Isa isa) { return dtype == DType::kBF16 && isa == Isa::kAvx512Bf16; }

}  // namespace convgrad::cpu
