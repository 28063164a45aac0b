// The inner loop of fprop and dgrad for results of few channels: each is a dot product along the sources.
#pragma once

#include <cstdint>
#include <type_traits>

#include "common_src/number.h"
#include "cpu_src/bf16_dots.h"
#include "cpu_src/isa.h"
#include "cpu_src/microkernels/activation_tile.h"

namespace convgrad::cpu {

// Computes `pixels` results of `channels` channels. Pixel m's sources begin at source + m * source_step,
// channel k's filter at filter + k * filter_step; a segment's terms are contiguous in both. sums[m * channels
// + k] is set, or with `add` added to.
template <typename T>
using DotTile = void (*)(const T* source, const T* filter, const Segment* segments, int64_t count,
                         int64_t source_step, int64_t filter_step, Sum<T>* sums, bool add);

inline constexpr int kMaxDotChannels = 4, kMaxDotPixels = 14;

template <typename T>
struct DotTiles {
  int most_pixels[kMaxDotChannels + 1];                     // by channels
  DotTile<T> tile[kMaxDotChannels + 1][kMaxDotPixels + 1];  // by channels and pixels
};

CONVGRAD_PER_ISA(template <typename T> const DotTiles<T>& dot_tiles())
namespace avx512_bf16 {
template <typename T>
const DotTiles<T>& dot_tiles();
}

// Returns those of an instruction set.
template <typename T>
const DotTiles<T>& dot_tiles_of(Isa isa) {
  if constexpr (kHasBf16Dots && std::is_same_v<T, BFloat16>) {
    if (isa == Isa::kAvx512Bf16) return avx512_bf16::dot_tiles<T>();
  }
  return CONVGRAD_FOR_ISA(isa, dot_tiles<T>());
}

}  // namespace convgrad::cpu
