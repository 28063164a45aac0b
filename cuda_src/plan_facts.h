// What the plan decides about a call, from the plan itself, for people to read. Plain C++, so that it is
// known on machines without CUDA too.
#pragma once

#include "common_src/facts.h"
#include "common_src/problem.h"
#include "cuda_src/plan.h"
#include "cuda_src/pool/plan.h"

namespace convgrad::cuda {

// The facts of a call on a device of this compute capability's first number, whose arrays are aligned to 16
// bytes: "kernel", "reason", "workspace_bytes", and as far as the kernel has them the tile of the result that
// a block computes, "tasks" (blocks, or of wgmma the tiles that its blocks share), "arithmetic", "phases" and
// wgrad's "partial_sums". Throws std::invalid_argument where the kernel asked for does not serve the op.
Facts plan_facts(Op, const ConvProblem&, Request, int capability);
Facts plan_facts(const BiasProblem&, PoolKernel);

}  // namespace convgrad::cuda
