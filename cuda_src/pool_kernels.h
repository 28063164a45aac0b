// Pooling's and bgrad's own launch functions, one per op and kernel; pooling.cc picks among them.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "common_src/problem.h"

namespace convgrad::cuda {

cudaError_t reference_bgrad(const BiasProblem&, const void* dy, void* db, void* workspace, cudaStream_t);
cudaError_t reference_max_pool(const PoolProblem&, const void* x, void* y, int32_t* position, cudaStream_t);
cudaError_t reference_max_pool_grad(const PoolProblem&, const void* dy, const int32_t* position, void* dx,
                                    cudaStream_t);
cudaError_t reference_max_pool_select(const PoolProblem&, const void* t, const int32_t* position,
                                      void* selected, cudaStream_t);
cudaError_t reference_avg_pool(const PoolProblem&, const void* x, void* y, cudaStream_t);
cudaError_t reference_avg_pool_grad(const PoolProblem&, const void* dy, void* dx, cudaStream_t);

// max_pool's positions by the problem's rule in windows whose y is NaN or -infinity, after a kernel that gave
// y and the first maxima.
cudaError_t by_position_rule(const PoolProblem&, const void* x, const void* y, int32_t* position,
                             cudaStream_t);

// What average pooling divides every sum by; 0 where that is each window's number of taps on the input.
inline int32_t uniform_count(const PoolProblem& p) {
  if (p.sum) return 1;
  return p.count_include_pad ? static_cast<int32_t>(p.taps()) : 0;
}

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
