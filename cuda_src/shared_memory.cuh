// The one way kernels reach shared memory: a block's dynamic shared memory, seen as T.
#pragma once

namespace convgrad::cuda {

template <typename T>
__device__ T* shared_memory() {
  extern __shared__ __align__(16) unsigned char bytes[];
  return reinterpret_cast<T*>(bytes);
}

}  // namespace convgrad::cuda
