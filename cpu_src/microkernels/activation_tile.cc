// Pixels times channels in registers. The filter's vectors are loaded once for all pixels; each pixel's
// source is broadcast to a vector and multiplied by each of them. So (pixels + vectors) loads serve pixels *
// vectors multiply-adds.
#include "cpu_src/microkernels/activation_tile.h"

#include <array>
#include <utility>

#include "cpu_src/microkernels/simd.h"

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

template <typename S, int kVectors, int kPixels>
void activation_tile(const S* source, const S* filter, const Segment* segments, int64_t count,
                     int64_t source_step, int64_t filter_step, S* result, int64_t result_step, Into into) {
  Vec<S> sum[kPixels][kVectors];
  CONVGRAD_UNROLL
  for (int m = 0; m < kPixels; ++m) {
    CONVGRAD_UNROLL
    for (int v = 0; v < kVectors; ++v) sum[m][v] = Vec<S>{};
  }
  const PixelSteps steps(source_step * static_cast<int64_t>(sizeof(S)));
  for (const Segment* segment = segments; segment < segments + count; ++segment) {
    const char* x = reinterpret_cast<const char*>(source + segment->source);
    const S* w = filter + segment->filter;
    for (int64_t c = 0; c < segment->length; ++c) {
      Vec<S> w_c[kVectors];
      CONVGRAD_UNROLL
      for (int v = 0; v < kVectors; ++v) w_c[v] = load(w + v * kLanes<S>);
      w += filter_step;
      CONVGRAD_UNROLL
      for (int m = 0; m < kPixels; ++m) {
        const Vec<S> x_m = broadcast(*reinterpret_cast<const S*>(x + steps[m]));
        CONVGRAD_UNROLL
        for (int v = 0; v < kVectors; ++v) sum[m][v] += x_m * w_c[v];  // y[n,o,k] += x[n,i,c] * w[r,c,k]
      }
      x += sizeof(S);
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
template <typename S>
constexpr int most_activation_pixels(int vectors) {
  const int fit = (kTileRegisters<S> - 1 - vectors) / vectors;
  return fit < kMaxTilePixels ? fit : kMaxTilePixels;
}

template <typename S, int kVectors, int... kPixels>
constexpr void fill_activation(ActivationTiles<S>& tiles, std::integer_sequence<int, kPixels...>) {
  tiles.most_pixels[kVectors] = sizeof...(kPixels);
  ((tiles.tile[kVectors][kPixels + 1] = &activation_tile<S, kVectors, kPixels + 1>), ...);
}

template <typename S>
constexpr ActivationTiles<S> all_activation_tiles() {
  ActivationTiles<S> tiles = {};
  tiles.lanes = kLanes<S>;
  fill_activation<S, 1>(tiles, std::make_integer_sequence<int, most_activation_pixels<S>(1)>());
  fill_activation<S, 2>(tiles, std::make_integer_sequence<int, most_activation_pixels<S>(2)>());
  fill_activation<S, 3>(tiles, std::make_integer_sequence<int, most_activation_pixels<S>(3)>());
  fill_activation<S, 4>(tiles, std::make_integer_sequence<int, most_activation_pixels<S>(4)>());
  return tiles;
}

template <typename S>
constexpr ActivationTiles<S> kActivationTiles = all_activation_tiles<S>();

}  // namespace

template <>
const ActivationTiles<float>& activation_tiles<float>() {
  return kActivationTiles<float>;
}
template <>
const ActivationTiles<double>& activation_tiles<double>() {
  return kActivationTiles<double>;
}

}  // namespace convgrad::cpu::CONVGRAD_ISA
