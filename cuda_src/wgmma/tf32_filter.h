// Prepares a filter for wgmma in TF32, which reads its operand from shared memory as it is: rounds it to
// nearest and makes it K-major. The cost is small, because a filter has few elements and each meets a whole
// batch.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

namespace convgrad::cuda {

// Computes rounded[e] = w[e] for e < count.
cudaError_t round_to_tf32(const float* w, float* rounded, int64_t count, cudaStream_t);
// Computes rounded[r,k,c] = w[r,c,k].
cudaError_t transpose_to_tf32(const float* w, float* rounded, int64_t taps, int64_t group_in,
                              int64_t out_channels, cudaStream_t);

}  // namespace convgrad::cuda
