// What the CPU handlers call: each op's plan, as tasks over the problem (ffi_src/problem.h).
// Pointers are dense, channels-last, of the problem's dtype, and must outlive the returned work.
#pragma once

#include <cstdint>

#include "cpu_src/plan.h"
#include "cpu_src/work.h"
#include "ffi_src/problem.h"

namespace convgrad::cpu {

Work fprop(const ConvProblem&, const void* x, const void* w, void* y);
Work dgrad(const ConvProblem&, const void* dy, const void* w, void* dx);
Work wgrad(const ConvProblem&, const void* x, const void* dy, void* dw);
// `workspace` holds bgrad_workspace_bytes() bytes of partial sums.
Work bgrad(const BiasProblem&, const void* dy, void* db, void* workspace);

// `position` may be null where only y is wanted.
Work max_pool(const PoolProblem&, const void* x, void* y, int32_t* position);
Work max_pool_grad(const PoolProblem&, const void* dy, const int32_t* position, void* dx);
// t[n,i,c] at the positions that max_pool chose: the transpose of max_pool_grad.
Work max_pool_select(const PoolProblem&, const void* t, const int32_t* position, void* selected);
Work avg_pool(const PoolProblem&, const void* x, void* y);
Work avg_pool_grad(const PoolProblem&, const void* dy, void* dx);

}  // namespace convgrad::cpu
