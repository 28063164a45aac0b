// Replaces the project's header of the same name: counts each access and checks its address.
#pragma once

#include <cuda_runtime.h>

#include "cuda_emulator/vector_access.h"

namespace convgrad::cuda {

template <typename V>
inline constexpr bool kIsAccess =
    (sizeof(V) == 4 || sizeof(V) == 8 || sizeof(V) == 16) && alignof(V) == sizeof(V);

template <typename V>
V load_global(const V* address) {
  static_assert(kIsAccess<V>);
  cuda_emulator::before_global_load(address, sizeof(V));
  return *address;
}

template <typename V>
void store_global(V* address, V value) {
  static_assert(kIsAccess<V>);
  cuda_emulator::before_global_store(address, sizeof(V));
  *address = value;
}

template <typename V>
V load_shared(const V* address) {
  static_assert(kIsAccess<V>);
  cuda_emulator::before_shared_load(address, sizeof(V));
  return *address;
}

template <typename V>
void store_shared(V* address, V value) {
  static_assert(kIsAccess<V>);
  cuda_emulator::before_shared_store(address, sizeof(V));
  *address = value;
}

}  // namespace convgrad::cuda
