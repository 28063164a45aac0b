// Reads numbers of a patch two by two, as a lane of an mma takes them.
#pragma once

#include "common_src/number.h"
#include "cuda_src/few_channels/patch.cuh"

namespace convgrad::cuda {

// The access that reads two neighbouring numbers of an arithmetic.
template <Math kMath>
struct PairTypes {
  using Access = uint32_t;
};
template <>
struct PairTypes<Math::kTF32> {
  using Access = float2;
};
template <>
struct PairTypes<Math::kF64> {
  using Access = double2;
};

// Two f32 numbers as words of TF32, or two f64.
template <typename Word>
struct Pair {
  Word first, second;
};

__device__ inline uint32_t pack_halves(uint32_t first, uint32_t second) { return first | second << 16; }

// Read one number of 32 or 64 bits, visibly for the emulator's counters.
__device__ inline float number_at(const float* at) { return load_shared(at); }
__device__ inline double number_at(const double* at) { return load_shared(at); }

__device__ inline uint32_t as_word(float number) { return to_tf32(number); }
__device__ inline double as_word(double number) { return number; }

// Locates a lane's two slots, and marks which of them are numbers of the window. The others are read as zero,
// whatever lies there, because zero times an infinity would be NaN.
//
//     kPaired   at: the offset of the first;  other: a mask of the two halves, or a bit for each
//     else      at, other: the offsets of both, negative for a slot that is no number
struct PairPlace {
  int at, other;
};

template <Math kMath, bool kPaired>
__device__ inline PairPlace pair_place(const FewChannelsProblem& p, int slot) {
  const FewChannelsSlot first = slot_at<kPaired>(p, slot), second = slot_at<kPaired>(p, slot + 1);
  if constexpr (!kPaired)
    return {first.depth >= 0 ? first.offset : -1, second.depth >= 0 ? second.offset : -1};
  if constexpr (sizeof(typename MathTypes<kMath>::Stored) == 2)
    return {first.offset, (first.depth >= 0 ? 0xffff : 0) | (second.depth >= 0 ? ~0xffff : 0)};
  return {first.offset, (first.depth >= 0 ? 1 : 0) | (second.depth >= 0 ? 2 : 0)};
}

template <bool kPaired, typename Half>
__device__ __forceinline__ uint32_t half_pair(const Half* window, PairPlace place) {
  if constexpr (kPaired) {
    const uint32_t both = load_shared(reinterpret_cast<const uint32_t*>(window + place.at));
    return both & static_cast<uint32_t>(place.other);
  }
  return pack_halves(place.at >= 0 ? window[place.at].bits : 0,
                     place.other >= 0 ? window[place.other].bits : 0);
}

template <Math kMath, bool kPaired>
__device__ __forceinline__ auto wide_pair(const typename MathTypes<kMath>::Stored* window, PairPlace place) {
  using Word = decltype(as_word(*window));
  using Access = typename PairTypes<kMath>::Access;
  if constexpr (kPaired) {
    const Access both = load_shared(reinterpret_cast<const Access*>(window + place.at));
    return Pair<Word>{place.other & 1 ? as_word(both.x) : Word{}, place.other & 2 ? as_word(both.y) : Word{}};
  } else {
    // Every lane loads, so that the emulator counts one instruction.
    const auto first = number_at(window + (place.at >= 0 ? place.at : 0));
    const auto second = number_at(window + (place.other >= 0 ? place.other : 0));
    return Pair<Word>{place.at >= 0 ? as_word(first) : Word{}, place.other >= 0 ? as_word(second) : Word{}};
  }
}

}  // namespace convgrad::cuda
