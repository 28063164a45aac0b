// Turns a problem of few input channels into template arguments.
#pragma once

#include <cstdint>
#include <type_traits>

#include "cuda_src/block/choice.h"
#include "cuda_src/few_channels/plan.h"

namespace convgrad::cuda {

template <int kColumns>
using ColumnsTag = std::integral_constant<int, kColumns>;

// Calls use(math, columns, paired, wide) with objects whose types carry the values. wide: rows of the result
// and of dy begin at multiples of 16 bytes and fill whole chunks. If they do not, each number needs an
// address of its own, which leaves no registers for 64 columns of sums. Full f32 takes the depth number by
// number.
template <typename Use>
auto dispatch_few_channels(const ConvProblem& p, bool paired, Math math, bool wide, Use use) {
  const auto with_columns = [&](auto of_math, auto of_pairs) {
    if (!wide) return use(of_math, ColumnsTag<32>{}, of_pairs, std::false_type{});
    if constexpr (of_math.value != Math::kF64) {
      if (few_channels_columns(p) == 64) return use(of_math, ColumnsTag<64>{}, of_pairs, std::true_type{});
    }
    return use(of_math, ColumnsTag<32>{}, of_pairs, std::true_type{});
  };
  const auto with_pairs = [&](auto of_math) {
    return paired ? with_columns(of_math, std::true_type{}) : with_columns(of_math, std::false_type{});
  };
  switch (math) {
    case Math::kBF16:
      return with_pairs(MathTag<Math::kBF16>{});
    case Math::kF16:
      return with_pairs(MathTag<Math::kF16>{});
    case Math::kTF32:
      return with_pairs(MathTag<Math::kTF32>{});
    case Math::kF64:
      return with_pairs(MathTag<Math::kF64>{});
    case Math::kF32:
      break;
  }
  return with_columns(MathTag<Math::kF32>{}, std::false_type{});
}

// Reports whether output channels fill whole chunks and arrays begin at multiples of one.
template <typename... Arrays>
bool has_chunked_columns(const ConvProblem& p, const Arrays*... arrays) {
  return p.out_channels * bytes_of(p.dtype) % 16 == 0 &&
         ((reinterpret_cast<uintptr_t>(arrays) % 16 == 0) && ...);
}

}  // namespace convgrad::cuda
