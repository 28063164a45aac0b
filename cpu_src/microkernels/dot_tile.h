// The inner loop of fprop and dgrad for results of few channels: each is a dot product along the sources.
#pragma once

#include <cstdint>

#include "common_src/number.h"
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

}  // namespace convgrad::cpu
