#include "cuda_src/block/choice.h"

#include <algorithm>
#include <initializer_list>

#include "common_src/integers.h"
#include "common_src/phase.h"
#include "cuda_src/split.h"

namespace convgrad::cuda {

bool gemm_serves(const ConvProblem& p) {
  constexpr int kBits = 29;  // a sum of four such numbers fits 31 bits
  const auto fits = [](std::initializer_list<int64_t> factors) { return fits_bits(kBits, factors); };
  const auto& [a, b, c] = p.axis;
  return fits({a.input, b.input, c.input}) && fits({a.output, b.output, c.output}) &&
         fits({p.out_channels}) && fits({p.in_channels}) && fits({a.taps, b.taps, c.taps}) &&
         fits({a.taps, b.taps, c.taps, p.in_channels}) &&
         std::all_of(p.axis, p.axis + kAxes, [&](const Axis& axis) {
           return fits({axis.stride, axis.output}) && fits({axis.filter_dilation, axis.taps}) &&
                  fits({axis.input_dilation, axis.input}) && fits({axis.pad_lo});
         });
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

namespace {

// Chooses between large and small tiles for a product of `rows` by `columns` per group.
GemmChoice gemm_choice(const ConvProblem& p, bool tf32, int64_t rows, TileShape small_tile) {
  const int64_t columns = p.group_out();
  const auto padded = [](int64_t extent, int64_t tile) {
    return static_cast<double>(tiles_over(extent, tile) * tile);
  };
  // A multiply-add of the small tile costs about a tenth more, because each number that it reads serves
  // fewer.
  const double large = padded(rows, kLargeTile.rows) * padded(columns, kLargeTile.columns);
  const double small = padded(rows, small_tile.rows) * padded(columns, small_tile.columns) * 1.1;
  return {math_of(p.dtype, tf32), large <= small, is_chunked(p)};
}

}  // namespace

GemmChoice gemm_activation_choice(const ConvProblem& p, bool tf32) {
  return gemm_choice(p, tf32, p.batch * p.outputs(), kSmallActivationTile);
}

GemmChoice gemm_filter_choice(const ConvProblem& p, bool tf32) {
  const int64_t taps = filter_has_phases(p) ? Phases(p, ResultIs::kTaps).most_taps() : p.taps();
  return gemm_choice(p, tf32, taps * p.group_in(), kSmallFilterTile);
}

}  // namespace convgrad::cuda
