// Launch functions of the pooling and bgrad kernels, one per op and kernel; pooling.cc picks among them.
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

// Replaces the positions of windows whose y is NaN or -infinity by those of the problem's rule. Runs after a
// kernel that has written y and the first maxima.
cudaError_t by_position_rule(const PoolProblem&, const void* x, const void* y, int32_t* position,
                             cudaStream_t);

// Returns the divisor of average pooling if all outputs have the same; 0 if each output divides by its
// window's number of taps on the input.
inline int32_t uniform_count(const PoolProblem& p) {
  if (p.sum) return 1;
  return p.count_include_pad ? static_cast<int32_t>(p.taps()) : 0;
}

// Require results that are not empty.
cudaError_t vector_bgrad(const BiasProblem&, const void* dy, void* db, void* workspace, cudaStream_t);
cudaError_t vector_max_pool(const PoolProblem&, const void* x, void* y, int32_t* position, cudaStream_t);
cudaError_t vector_max_pool_grad(const PoolProblem&, const void* dy, const int32_t* position, void* dx,
                                 cudaStream_t);
cudaError_t vector_max_pool_select(const PoolProblem&, const void* t, const int32_t* position, void* selected,
                                   cudaStream_t);
cudaError_t vector_avg_pool(const PoolProblem&, const void* x, void* y, cudaStream_t);
cudaError_t vector_avg_pool_grad(const PoolProblem&, const void* dy, void* dx, cudaStream_t);

}  // namespace convgrad::cuda
