// Pixels times channels in registers. The filter's vectors are loaded once for all pixels; each pixel's
// source is broadcast to a vector and multiplied by each of them. So (pixels + vectors) loads serve pixels *
// vectors multiply-adds.
#include "cpu_src/microkernels/activation_tile.h"

#include <array>
#include <utility>

#include "cpu_src/microkernels/simd.h"
#include "cpu_src/microkernels/tile_operand.h"

namespace convgrad::cpu::CONVGRAD_ISA {
namespace {

// The offset of pixel m's sources. An x86 address can add a base and 1, 2, 4 or 8 times an index, so the odd
// multiples of the step (and 16) reach all pixels, and no pixel needs a pointer of its own that has to
// advance.
struct PixelSteps {
  int64_t odd[14], sixteen;
  CONVGRAD_INLINE explicit PixelSteps(int64_t step) : sixteen(16 * step) {
    CONVGRAD_UNROLL
    for (int at = 0; at < 14; ++at) odd[at] = (2 * at + 1) * step;
  }
  CONVGRAD_INLINE int64_t operator[](int m) const {
    static_assert(kMaxTilePixels < 32);
    if (m == 0) return 0;
    if (m == 16) return sixteen;
    int power = 1;
    for (; m % 2 == 0; m /= 2) power *= 2;
    return odd[m / 2] * power;
  }
};

template <typename X, int kVectors, int kPixels>
void activation_tile(const X* source, const X* filter, const Segment* segments, int64_t count,
                     int64_t source_step, int64_t filter_step, TileSum<X>* result, int64_t result_step,
                     Into into) {
  using S = TileSum<X>;
  Vec<S> sum[kPixels][kVectors];
  CONVGRAD_UNROLL
  for (int m = 0; m < kPixels; ++m) {
    CONVGRAD_UNROLL
    for (int v = 0; v < kVectors; ++v) sum[m][v] = Vec<S>{};
  }
  const PixelSteps steps(source_step * static_cast<int64_t>(sizeof(X)));
  for (const Segment* segment = segments; segment < segments + count; ++segment) {
    const char* x = reinterpret_cast<const char*>(source + segment->source);
    const X* w = filter + segment->filter;
    for (int64_t c = 0; c < segment->length; ++c) {
      Operand<X> w_c[kVectors];
      CONVGRAD_UNROLL
      for (int v = 0; v < kVectors; ++v) w_c[v] = Operand<X>::load(w + v * kLanes<S>);
      w += filter_step;
      CONVGRAD_UNROLL
      for (int m = 0; m < kPixels; ++m) {
        const Operand<X> x_m = Operand<X>::broadcast(reinterpret_cast<const X*>(x + steps[m]));
        CONVGRAD_UNROLL
        for (int v = 0; v < kVectors; ++v)
          add_product(sum[m][v], x_m, w_c[v]);  // y[n,o,k] += x[n,i,c] * w[r,c,k]
      }
      x += sizeof(X);
    }
  }
  if constexpr (std::is_same_v<X, BFloat16Pair>) {
    if (into == Into::kRounded) {
      BFloat16* const rounded = reinterpret_cast<BFloat16*>(result);
      CONVGRAD_UNROLL
      for (int m = 0; m < kPixels; ++m) {
        CONVGRAD_UNROLL
        for (int v = 0; v < kVectors; ++v) store(rounded + m * result_step + v * kLanes<S>, sum[m][v]);
      }
      return;
    }
  }
  CONVGRAD_UNROLL
  for (int m = 0; m < kPixels; ++m) {
    CONVGRAD_UNROLL
    for (int v = 0; v < kVectors; ++v) {
      S* dst = result + m * result_step + v * kLanes<S>;
      if (into == Into::kStream)
        stream(dst, sum[m][v]);
      else
        store(dst, into == Into::kAdd ? load(dst) + sum[m][v] : sum[m][v]);
    }
  }
  if (into == Into::kStream) end_stream();
}

// Sums, the filter's vectors and one source must fit into the registers.
template <typename X>
constexpr int most_activation_pixels(int vectors) {
  const int fit = (kTileRegisters<TileSum<X>> - 1 - vectors) / vectors;
  return fit < kMaxTilePixels ? fit : kMaxTilePixels;
}

template <typename X, int kVectors, int... kPixels>
constexpr void fill_activation(ActivationTiles<X>& tiles, std::integer_sequence<int, kPixels...>) {
  tiles.most_pixels[kVectors] = sizeof...(kPixels);
  ((tiles.tile[kVectors][kPixels + 1] = &activation_tile<X, kVectors, kPixels + 1>), ...);
}

template <typename X>
constexpr ActivationTiles<X> all_activation_tiles() {
  ActivationTiles<X> tiles = {};
  tiles.lanes = kLanes<TileSum<X>>;
  fill_activation<X, 1>(tiles, std::make_integer_sequence<int, most_activation_pixels<X>(1)>());
  fill_activation<X, 2>(tiles, std::make_integer_sequence<int, most_activation_pixels<X>(2)>());
  fill_activation<X, 3>(tiles, std::make_integer_sequence<int, most_activation_pixels<X>(3)>());
  fill_activation<X, 4>(tiles, std::make_integer_sequence<int, most_activation_pixels<X>(4)>());
  return tiles;
}

template <typename X>
constexpr ActivationTiles<X> kActivationTiles = all_activation_tiles<X>();

}  // namespace

#if defined(CONVGRAD_BF16_DOTS)
template <>
const ActivationTiles<BFloat16Pair>& activation_tiles<BFloat16Pair>() {
  return kActivationTiles<BFloat16Pair>;
}
#else
template <>
const ActivationTiles<float>& activation_tiles<float>() {
  return kActivationTiles<float>;
}
template <>
const ActivationTiles<double>& activation_tiles<double>() {
  return kActivationTiles<double>;
}
#endif

}  // namespace convgrad::cpu::CONVGRAD_ISA
