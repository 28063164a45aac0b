// Launch functions of the convolution kernels, one per op and kernel; convolution.cc picks among them.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "common_src/epilogue.h"
#include "common_src/problem.h"
#include "cuda_src/split.h"

namespace convgrad::cuda {

cudaError_t reference_fprop(const ConvProblem&, const void* x, const void* w, Epilogue, void* y,
                            cudaStream_t);
cudaError_t reference_dgrad(const ConvProblem&, const void* dy, const void* w, void* dx, cudaStream_t);
cudaError_t reference_wgrad(const ConvProblem&, const void* x, const void* dy, void* dw, cudaStream_t);

cudaError_t tiled_fprop(const ConvProblem&, const void* x, const void* w, Epilogue, void* y, cudaStream_t);
cudaError_t tiled_dgrad(const ConvProblem&, const void* dy, const void* w, void* dx, cudaStream_t);
cudaError_t tiled_wgrad(const ConvProblem&, const void* x, const void* dy, void* dw, void* workspace,
                        cudaStream_t);

cudaError_t gemm_fprop(const ConvProblem&, bool tf32, const void* x, const void* w, Epilogue, void* y,
                       cudaStream_t);
cudaError_t gemm_dgrad(const ConvProblem&, bool tf32, const void* dy, const void* w, void* dx, cudaStream_t);
// db may be null.
cudaError_t gemm_wgrad(const ConvProblem&, bool tf32, const void* x, const void* dy, void* dw, void* db,
                       void* workspace, cudaStream_t);

// Require wgmma_serves() and arrays aligned to 16 bytes. For f32, which these kernels multiply as TF32, the
// workspace of fprop and dgrad holds a rounded copy of the filter.
cudaError_t wgmma_fprop(const ConvProblem&, const void* x, const void* w, Epilogue, void* y, void* workspace,
                        cudaStream_t);
cudaError_t wgmma_dgrad(const ConvProblem&, const void* dy, const void* w, void* dx, void* workspace,
                        cudaStream_t);
cudaError_t wgmma_wgrad(const ConvProblem&, const void* x, const void* dy, void* dw, void* workspace,
                        cudaStream_t);

// Require grouped_serves().
cudaError_t grouped_fprop(const ConvProblem&, const void* x, const void* w, Epilogue, void* y, cudaStream_t);
cudaError_t grouped_dgrad(const ConvProblem&, const void* dy, const void* w, void* dx, cudaStream_t);
cudaError_t grouped_wgrad(const ConvProblem&, const void* x, const void* dy, void* dw, void* workspace,
                          cudaStream_t);

// Require few_channels_serves(), for dgrad that of the transposed problem.
cudaError_t few_channels_fprop(const ConvProblem&, bool tf32, const void* x, const void* w, Epilogue, void* y,
                               cudaStream_t);
cudaError_t few_channels_dgrad(const ConvProblem&, bool tf32, const void* dy, const void* w, void* dx,
                               cudaStream_t);
cudaError_t few_channels_wgrad(const ConvProblem&, bool tf32, const void* x, const void* dy, void* dw,
                               void* workspace, cudaStream_t);

// Fill results of kernels that run over phases (common_src/phase.h), for results that belong to no phase.
// empty_sums() writes to all of y what a sum without terms becomes, which is zero unless there is a bias; its
// problem is in fprop's letters. clear() writes zeros; the number of bytes is even.
cudaError_t empty_sums(const ConvProblem&, Epilogue, void* y, cudaStream_t);
cudaError_t clear(void* to, int64_t bytes, cudaStream_t);
// Clears every part of wgrad, or dw if `partials` is null.
cudaError_t clear_filter(const ConvProblem&, Split, void* dw, void* partials, cudaStream_t);

// Computes result[e] = sum over part of partials[part,e] for e < count, in the order of the parts. The
// partials have the type that sums over dtype run in.
cudaError_t add_parts(DType, const void* partials, void* result, int64_t parts, int64_t count, cudaStream_t);

}  // namespace convgrad::cuda
