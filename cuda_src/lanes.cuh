// A vector of neighbouring numbers in one thread's registers, loaded and stored with the widest aligned
// access.
#pragma once

#include <cuda_runtime.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <type_traits>

#include "common_src/number.h"

namespace convgrad::cuda {

inline constexpr int kWordBytes = 16;  // the widest access of one thread

template <typename T, int kLanes>
struct Lanes {
  T lane[kLanes];
};

namespace detail {
template <int kBytes>
using Word = std::conditional_t<
    kBytes >= kWordBytes, uint4,
    std::conditional_t<kBytes == 8, uint2, std::conditional_t<kBytes == 4, uint32_t, uint16_t>>>;
}  // namespace detail

template <int kLanes, typename T>
__device__ __forceinline__ Lanes<T, kLanes> load(const T* from) {
  using Word = detail::Word<sizeof(T) * kLanes>;
  constexpr int kWords = sizeof(T) * kLanes / sizeof(Word);
  static_assert(kWords * sizeof(Word) == sizeof(T) * kLanes);
  Word words[kWords];
#pragma unroll
  for (int w = 0; w < kWords; ++w) words[w] = __ldg(reinterpret_cast<const Word*>(from) + w);
  Lanes<T, kLanes> lanes;
  memcpy(&lanes, words, sizeof lanes);
  return lanes;
}

template <typename T, int kLanes>
__device__ __forceinline__ void store(T* to, const Lanes<T, kLanes>& lanes) {
  using Word = detail::Word<sizeof(T) * kLanes>;
  constexpr int kWords = sizeof(T) * kLanes / sizeof(Word);
  Word words[kWords];
  memcpy(words, &lanes, sizeof lanes);
#pragma unroll
  for (int w = 0; w < kWords; ++w) reinterpret_cast<Word*>(to)[w] = words[w];
}

template <int kLanes, typename T>
__device__ __forceinline__ Lanes<T, kLanes> all_lanes(T value) {
  Lanes<T, kLanes> lanes;
#pragma unroll
  for (T& lane : lanes.lane) lane = value;
  return lanes;
}

template <typename Stored, int kLanes>
__device__ __forceinline__ Lanes<Sum<Stored>, kLanes> widen_lanes(const Lanes<Stored, kLanes>& stored) {
  Lanes<Sum<Stored>, kLanes> lanes;
#pragma unroll
  for (int l = 0; l < kLanes; ++l) lanes.lane[l] = widen(stored.lane[l]);
  return lanes;
}

template <typename Stored, int kLanes>
__device__ __forceinline__ Lanes<Stored, kLanes> narrow_lanes(const Lanes<Sum<Stored>, kLanes>& sums) {
  Lanes<Stored, kLanes> lanes;
#pragma unroll
  for (int l = 0; l < kLanes; ++l) lanes.lane[l] = narrow<Stored>(sums.lane[l]);
  return lanes;
}

// Reports whether load() and store() may access so many bytes at this address.
inline bool is_aligned(const void* pointer, size_t bytes) {
  return reinterpret_cast<uintptr_t>(pointer) % std::min<size_t>(bytes, kWordBytes) == 0;
}

// For dispatch_lanes(): reports whether all of these arrays are aligned for vectors of `lanes` numbers.
template <typename Stored>
auto fits_lanes(const void* numbers, const void* others, const int32_t* position = nullptr) {
  return [=](size_t lanes) {
    return is_aligned(numbers, lanes * sizeof(Stored)) && is_aligned(others, lanes * sizeof(Stored)) &&
           is_aligned(position, lanes * sizeof(int32_t));
  };
}

// Calls use(std::integral_constant<int, kLanes>) with the longest vector that divides the channels and that
// fits() accepts: 16 bytes, two 16-bit numbers, or one number.
template <typename Stored, typename Fits, typename Use>
cudaError_t dispatch_lanes(int64_t channels, const Fits& fits, const Use& use) {
  constexpr int kWhole = kWordBytes / sizeof(Stored);
  if (channels % kWhole == 0 && fits(kWhole)) return use(std::integral_constant<int, kWhole>{});
  if constexpr (sizeof(Stored) == 2) {
    if (channels % 2 == 0 && fits(2)) return use(std::integral_constant<int, 2>{});
  }
  return use(std::integral_constant<int, 1>{});
}

}  // namespace convgrad::cuda
