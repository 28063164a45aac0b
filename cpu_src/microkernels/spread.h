// Source pixels as vectors whose lanes are result channels: what each lane is multiplied with.
#pragma once

#include <cstdint>
#include <type_traits>

#include "common_src/number.h"
#include "cpu_src/isa.h"

namespace convgrad::cpu {

// As wide as what it permutes.
template <typename S>
using LaneIndex = std::conditional_t<sizeof(S) == 8, int64_t, int32_t>;

// The sources of one vector of result channels: `copies` vectors, of which copy c holds in lane l the source
// channel first + lane[c * lanes + l], all below first + count. Where `in_order` it is one copy, of the
// channels as they are.
template <typename S>
struct LaneSources {
  int64_t first, count, copies;
  bool in_order;
  const LaneIndex<S>* lane;
};

// Pixels are from_step and to_step elements apart, in `to` a pixel's vectors vector_step and the copies of
// each copy_step. Lanes without a channel are zero where in_order, and anything otherwise. Memory is read
// pixel by pixel, all channels of one together.
template <typename T>
using Spread = void (*)(const T* from, int64_t from_step, int64_t pixels, const LaneSources<Sum<T>>* sources,
                        int64_t vectors, Sum<T>* to, int64_t to_step, int64_t vector_step, int64_t copy_step);

CONVGRAD_PER_ISA(template <typename T> Spread<T> spread())

}  // namespace convgrad::cpu
