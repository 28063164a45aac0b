// Converts pixels of few channels, which share a vector's lanes, to planes of one channel each, and back.
#pragma once

#include <cstdint>

#include "common_src/epilogue.h"
#include "cpu_src/isa.h"

namespace convgrad::cpu {

inline constexpr int kMostPlanes = 8;

// planes[c * plane_step + pixel] equals pixels[pixel * C + c]. C is the index into the tables.
// S is float or double.
template <typename S>
struct ChannelPlanes {
  void (*split[kMostPlanes + 1])(const S* pixels, int64_t count, S* planes, int64_t plane_step);
  void (*join[kMostPlanes + 1])(const S* planes, int64_t plane_step, int64_t count, S* pixels);
};

// Computes result[pixel] = finish(sum over t of source[offset[t] + pixel] * factor[t]) for `count` pixels,
// with a bias unless it is null. There is at least one term. The last vectors, up to four, may reach past the
// pixels.
template <typename S>
using PlaneSum = void (*)(const S* source, const int64_t* offset, const S* factor, int64_t terms,
                          const S* bias, bool relu, S* result, int64_t count);

CONVGRAD_PER_ISA(template <typename S> const ChannelPlanes<S>& channel_planes())
CONVGRAD_PER_ISA(template <typename S> PlaneSum<S> plane_sum())

}  // namespace convgrad::cpu
