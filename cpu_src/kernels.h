// The functions that the CPU handlers call: each returns an op's work as tasks over the problem
// (common_src/problem.h). Pointers are dense, channels-last, of the problem's dtype, and must outlive the
// returned work.
#pragma once

#include <cstdint>

#include "common_src/batch_norm.h"
#include "common_src/epilogue.h"
#include "common_src/problem.h"
#include "cpu_src/plan.h"
#include "cpu_src/work.h"

namespace convgrad::cpu {

// Run the convolution ops with the kernel that the plan chooses among those below. `workspace` holds
// conv_workspace_bytes() bytes.
Work fprop(const ConvProblem&, Request, const void* x, const void* w, Epilogue, void* y, void* workspace);
Work dgrad(const ConvProblem&, Request, const void* dy, const void* w, void* dx, void* workspace);
Work wgrad(const ConvProblem&, Request, const void* x, const void* dy, void* dw, void* workspace);

// "reference": the formulas directly; tests compare the other kernels with it.
Work reference_fprop(const ConvProblem&, const void* x, const void* w, Epilogue, void* y);
Work reference_dgrad(const ConvProblem&, const void* dy, const void* w, void* dx);
Work reference_wgrad(const ConvProblem&, const void* x, const void* dy, void* dw);

// "tiled": tiles of sums in registers, over all channels of a group.
Work tiled_fprop(const ConvProblem&, Isa, const void* x, const void* w, Epilogue, void* y, void* workspace);
Work tiled_dgrad(const ConvProblem&, Isa, const void* dy, const void* w, void* dx, void* workspace);
Work tiled_wgrad(const ConvProblem&, Isa, const void* x, const void* dy, void* dw, void* workspace);

// "winograd": fewer products for filters of 3 taps, between transforms of x, w and y.
Work winograd_fprop(const ConvProblem&, Isa, const void* x, const void* w, Epilogue, void* y,
                    void* workspace);
Work winograd_dgrad(const ConvProblem&, Isa, const void* dy, const void* w, void* dx, void* workspace);
Work winograd_wgrad(const ConvProblem&, Isa, const void* x, const void* dy, void* dw, void* workspace);

// "dot": the tiles of "tiled", with a vector's lanes along the channels that are summed over.
Work dot_fprop(const ConvProblem&, Isa, const void* x, const void* w, Epilogue, void* y, void* workspace);
Work dot_dgrad(const ConvProblem&, Isa, const void* dy, const void* w, void* dx);

// "grouped": small groups side by side in a vector's lanes.
Work grouped_fprop(const ConvProblem&, Isa, const void* x, const void* w, Epilogue, void* y, void* workspace);
Work grouped_dgrad(const ConvProblem&, Isa, const void* dy, const void* w, void* dx, void* workspace);
Work grouped_wgrad(const ConvProblem&, Isa, const void* x, const void* dy, void* dw, void* workspace);

// "depthwise": one channel a group, read where it lies.
Work depthwise_fprop(const ConvProblem&, Isa, const void* x, const void* w, Epilogue, void* y);
Work depthwise_dgrad(const ConvProblem&, Isa, const void* dy, const void* w, void* dx);
Work depthwise_wgrad(const ConvProblem&, Isa, const void* x, const void* dy, void* dw, void* workspace);

// "planar": few channels, with a vector's lanes along the pixels.
Work planar_fprop(const ConvProblem&, Isa, const void* x, const void* w, Epilogue, void* y);
Work planar_dgrad(const ConvProblem&, Isa, const void* dy, const void* w, void* dx);

// "pairs": each product separately, for problems with few products.
Work pairs_fprop(const ConvProblem&, Isa, const void* x, const void* w, Epilogue, void* y);
Work pairs_dgrad(const ConvProblem&, Isa, const void* dy, const void* w, void* dx);
Work pairs_wgrad(const ConvProblem&, Isa, const void* x, const void* dy, void* dw);

// Run the bias gradient and pooling, with the reference kernels or the vector kernels. `workspace` holds
// bgrad_workspace_bytes() bytes of partial sums; `position` may be null if only y is wanted.
Work bgrad(const BiasProblem&, Request, const void* dy, void* db, void* workspace);
Work max_pool(const PoolProblem&, Request, const void* x, void* y, int32_t* position);
Work max_pool_grad(const PoolProblem&, Request, const void* dy, const int32_t* position, void* dx);
// Reads t[n,i,c] at the positions that max_pool chose: the transpose of max_pool_grad. One kernel serves
// every request.
Work max_pool_select(const PoolProblem&, const void* t, const int32_t* position, void* selected);
Work avg_pool(const PoolProblem&, Request, const void* x, void* y);
Work avg_pool_grad(const PoolProblem&, Request, const void* dy, void* dx);

// Replaces the positions of windows whose y is NaN or -infinity by those of the problem's rule; only there
// rules differ from the first maximum. A stage after those that write y and the first maxima.
Stage by_position_rule(const PoolProblem&, const void* x, const void* y, int32_t* position);

Work reference_bgrad(const BiasProblem&, const void* dy, void* db, void* workspace);
Work reference_max_pool(const PoolProblem&, const void* x, void* y, int32_t* position);
Work reference_max_pool_grad(const PoolProblem&, const void* dy, const int32_t* position, void* dx);
Work reference_avg_pool(const PoolProblem&, const void* x, void* y);
Work reference_avg_pool_grad(const PoolProblem&, const void* dy, void* dx);

Work vector_bgrad(const BiasProblem&, Isa, const void* dy, void* db, void* workspace);
Work vector_max_pool(const PoolProblem&, Isa, const void* x, void* y, int32_t* position);
Work vector_max_pool_grad(const PoolProblem&, Isa, const void* dy, const int32_t* position, void* dx);
Work vector_avg_pool(const PoolProblem&, Isa, const void* x, void* y);
Work vector_avg_pool_grad(const PoolProblem&, Isa, const void* dy, void* dx);

// Run batch norm's passes, with the reference kernels or the vector kernels. `workspace` holds
// norm_workspace_bytes() bytes.
//
// The mean and the biased variance of each channel.
Work norm_moments(const NormProblem&, Request, const void* x, void* mean, void* var, void* workspace);
// y. Without slope and offset.
Work normalize(const NormProblem&, Request, const void* x, const NormVectors&, void* y);
// The sum of g and of g * (x - mean) over each channel. Without slope and offset.
Work norm_sums(const NormProblem&, Request, const void* x, const void* dy, const NormVectors&, void* sum,
               void* product, void* workspace);
// dx.
Work norm_gradient(const NormProblem&, Request, const void* x, const void* dy, const NormVectors&, void* dx);

Work reference_norm_moments(const NormProblem&, const void* x, void* mean, void* var);
Work reference_normalize(const NormProblem&, const void* x, const NormVectors&, void* y);
Work reference_norm_sums(const NormProblem&, const void* x, const void* dy, const NormVectors&, void* sum,
                         void* product);
Work reference_norm_gradient(const NormProblem&, const void* x, const void* dy, const NormVectors&, void* dx);

Work vector_norm_moments(const NormProblem&, Isa, const void* x, void* mean, void* var, void* workspace);
Work vector_normalize(const NormProblem&, Isa, const void* x, const NormVectors&, void* y);
Work vector_norm_sums(const NormProblem&, Isa, const void* x, const void* dy, const NormVectors&, void* sum,
                      void* product, void* workspace);
Work vector_norm_gradient(const NormProblem&, Isa, const void* x, const void* dy, const NormVectors&,
                          void* dx);

}  // namespace convgrad::cpu
