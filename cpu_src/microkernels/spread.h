// Spreads source pixels into vectors whose lanes are result channels: what each lane is multiplied by.
#pragma once

#include <cstdint>
#include <type_traits>

#include "common_src/number.h"
#include "cpu_src/isa.h"

namespace convgrad::cpu {

// An index as wide as what it permutes.
template <typename S>
using LaneIndex = std::conditional_t<sizeof(S) == 8, int64_t, int32_t>;

// The sources of one vector of result channels: `copies` vectors. Copy c holds in lane l the source channel
// first + lane[c * lanes + l]; all are below first + count. If `in_order`, there is one copy, which is the
// channels in order.
template <typename S>
struct LaneSources {
  int64_t first, count, copies;
  bool in_order;
  const LaneIndex<S>* lane;
};

// Spreads pixels that are from_step elements apart to pixels that are to_step apart; there a pixel's vectors
// are vector_step apart and their copies copy_step. Lanes without a channel are zero if in_order, otherwise
// undefined. Memory is read pixel by pixel, all channels of a pixel together.
template <typename T>
using Spread = void (*)(const T* src, int64_t from_step, int64_t pixels, const LaneSources<Sum<T>>* sources,
                        int64_t vectors, Sum<T>* dst, int64_t to_step, int64_t vector_step,
                        int64_t copy_step);

CONVGRAD_PER_ISA(template <typename T> Spread<T> spread())

}  // namespace convgrad::cpu
