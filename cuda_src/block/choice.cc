#include "cuda_src/gemm/choice.h"

#include <limits>

#include "cuda_src/tile_shape.h"

namespace convgrad::cuda {

bool gemm_serves(const ConvProblem& p) {
  constexpr int64_t kMost = std::numeric_limits<int32_t>::max() / 4;
  const auto small = [](int64_t value) { return value >= -kMost && value <= kMost; };
  if (!small(p.inputs()) || !small(p.outputs()) || !small(p.taps()) || !small(p.in_channels) ||
      !small(p.out_channels) || !small(p.taps() * p.in_channels))
    return false;
  for (const Axis& axis : p.axis) {
    if (!small(axis.stride * axis.output) || !small(axis.filter_dilation * axis.taps) ||
        !small(axis.input_dilation * axis.input) || !small(axis.pad_lo))
      return false;
  }
  return true;
}

Math math_of(DType dtype, bool tf32) {
  switch (dtype) {
    case DType::kBF16:
      return Math::kBF16;
    case DType::kF16:
      return Math::kF16;
    case DType::kF64:
      return Math::kF64;
    case DType::kF32:
      break;
  }
  return tf32 ? Math::kTF32 : Math::kF32;
}

GemmChoice gemm_choice(const ConvProblem& p, bool tf32, int64_t rows, int64_t columns, int small_rows) {
  const auto padded = [](int64_t extent, int64_t tile) {
    return static_cast<double>(tiles_over(extent, tile) * tile);
  };
  // A multiply-add of the small tile costs about a tenth more: each number that it reads serves fewer.
  const double large = padded(rows, 128) * padded(columns, 128);
  const double small = padded(rows, small_rows) * padded(columns, 64) * 1.1;
  return {math_of(p.dtype, tf32), large <= small, true};
}

}  // namespace convgrad::cuda
