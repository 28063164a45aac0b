// The main loop of the multistage kernels: while one slice of the depth is multiplied, the copies of the next
// slices are in flight.
#pragma once

#include <cstdint>

#include "cuda_src/arch/ptx.cuh"

namespace convgrad::cuda {

// fill(stage) starts to copy the next slice, in order, into a stage; multiply(stage) uses it.
template <int kStages, typename Fill, typename Multiply>
__device__ __forceinline__ void run_pipeline(int64_t slices, Fill fill, Multiply multiply) {
#pragma unroll
  for (int stage = 0; stage < kStages - 1; ++stage) {
    if (stage < slices) fill(stage);
    cp_async_commit();
  }
  int stage = 0;
  for (int64_t slice = 0; slice < slices; ++slice) {
    cp_async_wait<kStages - 2>();  // this thread's copies of the slice have arrived
    __syncthreads();               // so have all threads', and all have left the stage that is filled next
    if (slice + kStages - 1 < slices) fill(stage == 0 ? kStages - 1 : stage - 1);
    cp_async_commit();
    multiply(stage);
    stage = stage + 1 == kStages ? 0 : stage + 1;
  }
  cp_async_wait<0>();
  __syncthreads();
}

}  // namespace convgrad::cuda
