// What the grouped kernels share: loads and stores of channel lanes, and the taps that a result meets.
#pragma once

#include <type_traits>

#include "common_src/epilogue.h"
#include "common_src/number.h"
#include "cuda_src/grouped/plan.h"

namespace convgrad::cuda {

// For the kernels over vectors of depthwise channels: 16 bytes of f32 or f64. Vectors of a 16-bit type have 8
// bytes: as many sums in as many registers, and channel counts may be multiples of 4.
template <typename Stored>
inline constexpr int kVectorLanes = sizeof(Stored) == 8 ? 2 : 4;

// Results of a thread: 32 registers of sums.
template <typename Stored, int kLanes>
inline constexpr int kRunOf =
    kLanes * sizeof(Sum<Stored>) <= 16 ? kGroupedRun : 128 / static_cast<int>(kLanes * sizeof(Sum<Stored>));

template <typename Stored, int kLanes>
struct alignas(sizeof(Stored) * kLanes < 16 ? sizeof(Stored) * kLanes : 16) GroupedVector {
  Stored lane[kLanes];
};

template <int kLanes, typename Stored>
__device__ inline void load_lanes(const Stored* from, Sum<Stored> (&to)[kLanes]) {
  const auto stored = *reinterpret_cast<const GroupedVector<Stored, kLanes>*>(from);
#pragma unroll
  for (int l = 0; l < kLanes; ++l) to[l] = widen(stored.lane[l]);
}

// Loads from[at] and the following lanes, or zeros if not `there`.
template <int kLanes, typename Stored>
__device__ inline void load_lanes_if(bool there, const Stored* from, int64_t at, Sum<Stored> (&to)[kLanes]) {
  GroupedVector<Stored, kLanes> stored = {};
  if (there) stored = *reinterpret_cast<const GroupedVector<Stored, kLanes>*>(from + at);
#pragma unroll
  for (int l = 0; l < kLanes; ++l) to[l] = widen(stored.lane[l]);
}

// Stores to result[at] and the following lanes, as store_sum() does.
template <int kLanes, typename Stored>
__device__ inline void store_lanes(const Sum<Stored> (&from)[kLanes], Stored* result, int64_t at,
                                   bool unrounded) {
  if constexpr (sizeof(Stored) < sizeof(Sum<Stored>)) {
    if (unrounded) return store_lanes(from, reinterpret_cast<Sum<Stored>*>(result), at, false);
  }
  GroupedVector<Stored, kLanes> stored;
#pragma unroll
  for (int l = 0; l < kLanes; ++l) stored.lane[l] = narrow<Stored>(from[l]);
  *reinterpret_cast<GroupedVector<Stored, kLanes>*>(result + at) = stored;
}

// Applies the epilogue to one result, whose lanes are the channels from k on. It reads the bias again for
// each result: some kernels have no registers for it next to a run's sums.
template <typename Stored, int kLanes>
__device__ inline void finish_lanes(const Epilogue& epilogue, int64_t k, Sum<Stored> (&sums)[kLanes]) {
  if (!epilogue.any()) return;
  Sum<Stored> bias[kLanes];
  load_lanes_if(epilogue.bias != nullptr, static_cast<const Stored*>(epilogue.bias), k, bias);
#pragma unroll
  for (int l = 0; l < kLanes; ++l) sums[l] = epilogue.finish(sums[l], bias[l]);
}

__device__ inline bool is_inside(int at, int size) {
  return static_cast<unsigned>(at) < static_cast<unsigned>(size);
}

// A row of results.
struct GroupedRow {
  int n, o0, o1;
};

__device__ inline GroupedRow grouped_row(const GroupedProblem& p, unsigned row) {
  const unsigned outputs0 = p.axis[0].output, outputs1 = p.axis[1].output;
  const unsigned above = row / outputs1;
  return {static_cast<int>(above / outputs0), static_cast<int>(above % outputs0),
          static_cast<int>(row % outputs1)};
}

// The first tap that would be tied to result o on an axis without ends, and its source. r is past the last
// tap if there is no such tap.
struct FirstTap {
  int r, source;
};

__device__ inline FirstTap first_tap(const GroupedAxis& axis, int o) {
  const int at = o * axis.stride - axis.pad_lo;
  if (axis.input_dilation == 1) return {0, at};
  // r * filter_dilation = -at (mod input_dilation)
  int rest = at % axis.input_dilation;
  rest = rest > 0 ? axis.input_dilation - rest : -rest;
  if (axis.tap_common != 1) {
    if (rest % axis.tap_common != 0) return {axis.taps, 0};
    rest /= axis.tap_common;
  }
  const int r = axis.tap_inverse == 1
                    ? rest
                    : static_cast<int>(static_cast<int64_t>(rest) * axis.tap_inverse % axis.tap_step);
  if (r >= axis.taps) return {axis.taps, 0};
  return {r, (at + r * axis.filter_dilation) / axis.input_dilation};
}

// Skips the taps whose source, and the one `reach` further, lie in front of the first.
__device__ inline FirstTap skip_padding(const GroupedAxis& axis, FirstTap first, int reach) {
  const int last = first.source + reach;
  if (last >= 0) return first;
  const int skipped = (axis.tap_source_step - 1 - last) / axis.tap_source_step;
  return {first.r + skipped * axis.tap_step, first.source + skipped * axis.tap_source_step};
}

// Returns the source tied to result o and tap r, or a negative number.
__device__ inline int tied_source(const GroupedAxis& axis, int o, int r) {
  int at = o * axis.stride - axis.pad_lo + r * axis.filter_dilation;
  if (axis.input_dilation != 1) {
    if (at % axis.input_dilation != 0) return -1;
    at /= axis.input_dilation;
  }
  return is_inside(at, axis.input) ? at : -1;
}

// Calls visit(r0 * taps1 + r1, (n,i0,i1) flat) for every row of the source that is tied to a row of results,
// in the order of the taps.
template <typename Visit>
__device__ inline void for_each_source_row(const GroupedProblem& p, GroupedRow row, Visit visit) {
  const GroupedAxis &axis0 = p.axis[0], &axis1 = p.axis[1];
  const FirstTap first0 = skip_padding(axis0, first_tap(axis0, row.o0), 0);
  const FirstTap first1 = skip_padding(axis1, first_tap(axis1, row.o1), 0);
  for (int r0 = first0.r, i0 = first0.source; r0 < axis0.taps && i0 < axis0.input;
       r0 += axis0.tap_step, i0 += axis0.tap_source_step) {
    for (int r1 = first1.r, i1 = first1.source; r1 < axis1.taps && i1 < axis1.input;
         r1 += axis1.tap_step, i1 += axis1.tap_source_step)
      visit(r0 * axis1.taps + r1, (static_cast<int64_t>(row.n) * axis0.input + i0) * axis1.input + i1);
  }
}

inline bool is_aligned(const void* pointer) { return reinterpret_cast<uintptr_t>(pointer) % 16 == 0; }

}  // namespace convgrad::cuda
