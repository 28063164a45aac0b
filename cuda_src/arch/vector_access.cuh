// Loads and stores 4, 8 or 16 bytes through named functions, so that the emulator can count what they cost;
// it cannot see plain expressions. On a device each is one access.
#pragma once

#include <cuda_runtime.h>

namespace convgrad::cuda {

template <typename V>
inline constexpr bool kIsAccess =
    (sizeof(V) == 4 || sizeof(V) == 8 || sizeof(V) == 16) && alignof(V) == sizeof(V);

template <typename V>
__device__ __forceinline__ V load_global(const V* address) {
  static_assert(kIsAccess<V>);
  return *address;
}

template <typename V>
__device__ __forceinline__ void store_global(V* address, V value) {
  static_assert(kIsAccess<V>);
  *address = value;
}

template <typename V>
__device__ __forceinline__ V load_shared(const V* address) {
  static_assert(kIsAccess<V>);
  return *address;
}

template <typename V>
__device__ __forceinline__ void store_shared(V* address, V value) {
  static_assert(kIsAccess<V>);
  *address = value;
}

}  // namespace convgrad::cuda
