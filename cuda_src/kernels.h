// What the CUDA handlers call: one launch function per op. Plain C++, so that no caller needs nvcc.
//
// Every function queues its kernels on `stream` and returns the launch's error; none allocates,
// synchronises or keeps state. Pointers are device memory in the layout of common_src/problem.h, dense,
// and the dtype is the problem's. Sums have one fixed order, a function of the problem alone.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "common_src/epilogue.h"
#include "common_src/problem.h"
#include "cuda_src/plan.h"
#include "cuda_src/pool/plan.h"

namespace convgrad::cuda {

// `workspace` holds conv_workspace_bytes() bytes, bgrad's bgrad_workspace_bytes().
cudaError_t fprop(const ConvProblem&, Request, const void* x, const void* w, Epilogue, void* y,
                  void* workspace, cudaStream_t);
cudaError_t dgrad(const ConvProblem&, Request, const void* dy, const void* w, void* dx, void* workspace,
                  cudaStream_t);
cudaError_t wgrad(const ConvProblem&, Request, const void* x, const void* dy, void* dw, void* workspace,
                  cudaStream_t);
// Both of a layer's sums over positions, where the kernel can from one pass over dy.
cudaError_t wgrad_bgrad(const ConvProblem&, Request, const void* x, const void* dy, void* dw, void* db,
                        void* workspace, cudaStream_t);
cudaError_t bgrad(const BiasProblem&, PoolKernel, const void* dy, void* db, void* workspace, cudaStream_t);

// `position` is int32 and may be null where only y is wanted.
cudaError_t max_pool(const PoolProblem&, PoolKernel, const void* x, void* y, int32_t* position, cudaStream_t);
cudaError_t max_pool_grad(const PoolProblem&, PoolKernel, const void* dy, const int32_t* position, void* dx,
                          cudaStream_t);
// t[n,i,c] at the positions that max_pool chose: the transpose of max_pool_grad, and max pooling's jvp.
cudaError_t max_pool_select(const PoolProblem&, PoolKernel, const void* t, const int32_t* position,
                            void* selected, cudaStream_t);
cudaError_t avg_pool(const PoolProblem&, PoolKernel, const void* x, void* y, cudaStream_t);
cudaError_t avg_pool_grad(const PoolProblem&, PoolKernel, const void* dy, void* dx, cudaStream_t);

}  // namespace convgrad::cuda
