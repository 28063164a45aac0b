// A filter made ready for wgmma in TF32, whose operand in shared memory is read as it lies: rounded to
// nearest, and its last dimension the depth. It has few elements, and each meets a whole batch.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

namespace convgrad::cuda {

// rounded[e] = w[e], e < count.
cudaError_t round_to_tf32(const float* w, float* rounded, int64_t count, cudaStream_t);
// rounded[r,k,c] = w[r,c,k].
cudaError_t transpose_to_tf32(const float* w, float* rounded, int64_t taps, int64_t group_in,
                              int64_t out_channels, cudaStream_t);

}  // namespace convgrad::cuda
