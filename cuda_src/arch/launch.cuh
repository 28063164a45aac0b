// Launches kernels: chooses the number of blocks and assigns elements to threads.
#pragma once

#include <cuda_runtime.h>

#include <algorithm>
#include <cstdint>
#include <limits>
#include <utility>

namespace convgrad::cuda {

inline constexpr int kElementThreads = 256;
// Far more blocks than any device runs at a time; threads reach elements beyond them by striding over the
// grid.
inline constexpr int64_t kElementBlocks = 1 << 16;

// Chooses the minimum of blocks per multiprocessor for __launch_bounds__; 0 leaves it to ptxas. For compute
// capability 10.0 ptxas needs more registers for the same code and would spill, so such kernels name another
// number there.
constexpr int room_for(int blocks, int blocks_on_sm100) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ == 1000
  return static_cast<void>(blocks), blocks_on_sm100;
#else
  return static_cast<void>(blocks_on_sm100), blocks;
#endif
}

template <typename... Params, typename... Args>
cudaError_t launch_blocks(void (*kernel)(Params...), int64_t blocks, dim3 threads, size_t shared_bytes,
                          cudaStream_t stream, Args&&... args) {
  if (blocks <= 0) return cudaSuccess;
  if (blocks > std::numeric_limits<int32_t>::max()) return cudaErrorInvalidConfiguration;
  cudaLaunchConfig_t config = {};
  config.gridDim = dim3(static_cast<unsigned>(blocks));
  config.blockDim = threads;
  config.dynamicSmemBytes = shared_bytes;
  config.stream = stream;
  // A launch may use 48 KiB without this attribute. The attribute belongs to the function on the current
  // device. Setting it is not a stream operation, so it is allowed during a graph capture.
  constexpr size_t kUnasked = 48 << 10;
  if (shared_bytes > kUnasked) {
    const cudaError_t error = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                                   static_cast<int>(shared_bytes));
    if (error != cudaSuccess) return error;
  }
  return cudaLaunchKernelEx(&config, kernel, std::forward<Args>(args)...);
}

// Launches a kernel whose blocks loop over tiles b, b + gridDim.x and so on: one block per multiprocessor,
// whose shared memory holds only one.
template <typename... Params, typename... Args>
cudaError_t launch_persistent(void (*kernel)(Params...), int64_t tiles, dim3 threads, size_t shared_bytes,
                              cudaStream_t stream, Args&&... args) {
  if (tiles > std::numeric_limits<int32_t>::max()) return cudaErrorInvalidConfiguration;
  int device = 0, multiprocessors = 0;
  cudaError_t error = cudaGetDevice(&device);
  if (error == cudaSuccess)
    error = cudaDeviceGetAttribute(&multiprocessors, cudaDevAttrMultiProcessorCount, device);
  if (error != cudaSuccess) return error;
  return launch_blocks(kernel, std::min<int64_t>(tiles, multiprocessors), threads, shared_bytes, stream,
                       std::forward<Args>(args)...);
}

// Launches a kernel whose threads walk `count` elements from first_element() in steps of element_step().
template <typename... Params, typename... Args>
cudaError_t launch_elements(void (*kernel)(Params...), int64_t count, cudaStream_t stream, Args&&... args) {
  const int64_t blocks = count / kElementThreads + (count % kElementThreads != 0);
  return launch_blocks(kernel, std::min(blocks, kElementBlocks), kElementThreads, 0, stream,
                       std::forward<Args>(args)...);
}

__device__ inline int64_t first_element() {
  return static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
}

__device__ inline int64_t element_step() { return static_cast<int64_t>(gridDim.x) * blockDim.x; }

}  // namespace convgrad::cuda
