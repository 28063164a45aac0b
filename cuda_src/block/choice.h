// Chooses arithmetic, tile and access width of a multistage kernel, and turns these values into template
// arguments.
#pragma once

#include <cstdint>
#include <type_traits>

#include "common_src/problem.h"
#include "cuda_src/block/arithmetic.h"

namespace convgrad::cuda {

struct GemmChoice {
  Math math;
  bool large;  // the larger of two tiles
  bool wide;   // whole chunks of 16 bytes
};

// Returns the arithmetic of a dtype. For f32 it depends on whether TF32 is allowed.
Math math_of(DType, bool tf32);

// Reports whether every position that the relation passes fits the 32 bits in which the multistage kernels
// count.
bool gemm_serves(const ConvProblem&);

// Choose for y of a problem (for dgrad of the transposed one), and for dw. Both assume aligned arrays.
GemmChoice gemm_activation_choice(const ConvProblem&, bool tf32);
GemmChoice gemm_filter_choice(const ConvProblem&, bool tf32);

// The tiles between which a choice is made.
struct TileShape {
  int rows, columns;
};
inline constexpr TileShape kLargeTile = {128, 128}, kSmallActivationTile = {128, 64},
                           kSmallFilterTile = {64, 64};
// Reports whether the choice is the large tile. Full f32 and f64 always use the small tile, because their
// sums need twice the registers; so do problems whose channels do not fill whole chunks.
inline bool takes_large_tile(GemmChoice choice) {
  return choice.wide && choice.large && choice.math != Math::kF32 && choice.math != Math::kF64;
}

// Reports whether channels fill whole chunks and arrays begin at multiples of one.
template <typename... Arrays>
bool is_chunked(const ConvProblem& p, const Arrays*... arrays) {
  const int64_t chunk = 16 / bytes_of(p.dtype);
  return p.group_in() % chunk == 0 && p.group_out() % chunk == 0 &&
         ((reinterpret_cast<uintptr_t>(arrays) % 16 == 0) && ...);
}

template <Math kMath>
using MathTag = std::integral_constant<Math, kMath>;

// Calls use(math, tile, wide) with objects whose types carry the choice.
template <typename Large, typename Small, typename Use>
auto dispatch_gemm(GemmChoice choice, Use use) {
  const auto with = [&](auto math) {
    if (!choice.wide) return use(math, Small{}, std::false_type{});
    if constexpr (math.value != Math::kF32 && math.value != Math::kF64) {
      if (choice.large) return use(math, Large{}, std::true_type{});
    }
    return use(math, Small{}, std::true_type{});
  };
  switch (choice.math) {
    case Math::kBF16:
      return with(MathTag<Math::kBF16>{});
    case Math::kF16:
      return with(MathTag<Math::kF16>{});
    case Math::kTF32:
      return with(MathTag<Math::kTF32>{});
    case Math::kF64:
      return with(MathTag<Math::kF64>{});
    case Math::kF32:
      break;
  }
  return with(MathTag<Math::kF32>{});
}

}  // namespace convgrad::cuda
