// The functions that the CUDA handlers call, one per op. Plain C++, so that callers need no nvcc.
//
// Every function queues its kernels on `stream` and returns the launch's error; no function allocates,
// synchronises or keeps state. Pointers are device memory in the layout of common_src/problem.h, dense, and
// of the problem's dtype. Every sum has one fixed order, which depends on the problem alone.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "common_src/epilogue.h"
#include "common_src/problem.h"
#include "cuda_src/plan.h"
#include "cuda_src/pool/plan.h"

namespace convgrad::cuda {

// `workspace` holds conv_workspace_bytes() bytes, for bgrad() bgrad_workspace_bytes().
cudaError_t fprop(const ConvProblem&, Request, const void* x, const void* w, Epilogue, void* y,
                  void* workspace, cudaStream_t);
cudaError_t dgrad(const ConvProblem&, Request, const void* dy, const void* w, void* dx, void* workspace,
                  cudaStream_t);
cudaError_t wgrad(const ConvProblem&, Request, const void* x, const void* dy, void* dw, void* workspace,
                  cudaStream_t);
// Computes dw and db, in one pass over dy if the chosen kernel can.
cudaError_t wgrad_bgrad(const ConvProblem&, Request, const void* x, const void* dy, void* dw, void* db,
                        void* workspace, cudaStream_t);
cudaError_t bgrad(const BiasProblem&, PoolKernel, const void* dy, void* db, void* workspace, cudaStream_t);

// `position` may be null if only y is wanted.
cudaError_t max_pool(const PoolProblem&, PoolKernel, const void* x, void* y, int32_t* position, cudaStream_t);
cudaError_t max_pool_grad(const PoolProblem&, PoolKernel, const void* dy, const int32_t* position, void* dx,
                          cudaStream_t);
// Reads t[n,i,c] at the positions that max_pool chose: the transpose of max_pool_grad, and the jvp of max
// pooling.
cudaError_t max_pool_select(const PoolProblem&, PoolKernel, const void* t, const int32_t* position,
                            void* selected, cudaStream_t);
cudaError_t avg_pool(const PoolProblem&, PoolKernel, const void* x, void* y, cudaStream_t);
cudaError_t avg_pool_grad(const PoolProblem&, PoolKernel, const void* dy, void* dx, cudaStream_t);

}  // namespace convgrad::cuda
