// Pooling's and bgrad's own launch functions, one per op and kernel; pooling.cc picks among them.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "ffi_src/problem.h"

namespace convgrad::cuda {

cudaError_t direct_bgrad(const BiasProblem&, const void* dy, void* db, void* workspace, cudaStream_t);
cudaError_t direct_max_pool(const PoolProblem&, const void* x, void* y, int32_t* position, cudaStream_t);
cudaError_t direct_max_pool_grad(const PoolProblem&, const void* dy, const int32_t* position, void* dx,
                                 cudaStream_t);
cudaError_t direct_max_pool_select(const PoolProblem&, const void* t, const int32_t* position, void* selected,
                                   cudaStream_t);
cudaError_t direct_avg_pool(const PoolProblem&, const void* x, void* y, cudaStream_t);
cudaError_t direct_avg_pool_grad(const PoolProblem&, const void* dy, void* dx, cudaStream_t);

// The results of pooling are not empty.
cudaError_t vector_bgrad(const BiasProblem&, const void* dy, void* db, void* workspace, cudaStream_t);
cudaError_t vector_max_pool(const PoolProblem&, const void* x, void* y, int32_t* position, cudaStream_t);
cudaError_t vector_max_pool_grad(const PoolProblem&, const void* dy, const int32_t* position, void* dx,
                                 cudaStream_t);
cudaError_t vector_max_pool_select(const PoolProblem&, const void* t, const int32_t* position, void* selected,
                                   cudaStream_t);
cudaError_t vector_avg_pool(const PoolProblem&, const void* x, void* y, cudaStream_t);
cudaError_t vector_avg_pool_grad(const PoolProblem&, const void* dy, void* dx, cudaStream_t);

}  // namespace convgrad::cuda
