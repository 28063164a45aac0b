// Gives kernels their shared memory. It is always dynamic, so that every launch states how many bytes it
// needs.
#pragma once

#include <cuda_runtime.h>

namespace convgrad::cuda {

// Returns the start of the block's shared memory, aligned to 1024 bytes as swizzled tiles require. Its
// contents are undefined until written.
template <typename T>
__device__ __forceinline__ T* shared_memory() {
  extern __shared__ __align__(1024) unsigned char shared_bytes[];
  return reinterpret_cast<T*>(shared_bytes);
}

}  // namespace convgrad::cuda
