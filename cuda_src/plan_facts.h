// Reports the plan's decisions for people to read. Plain C++, so that machines without CUDA can report them
// too.
#pragma once

#include "common_src/facts.h"
#include "common_src/problem.h"
#include "cuda_src/plan.h"
#include "cuda_src/pool/plan.h"

namespace convgrad::cuda {

// Returns the facts of a call on a device of this major compute capability, with arrays aligned to 16 bytes:
// "kernel", "reason", "workspace_bytes", and where they apply to the kernel the tile of the result that a
// block computes, "tasks" (blocks; for wgmma the tiles that persistent blocks share), "arithmetic", "phases"
// and wgrad's "partial_sums". Throws std::invalid_argument if the kernel asked for does not serve the op.
Facts plan_facts(Op, const ConvProblem&, Request, int capability);
Facts plan_facts(const BiasProblem&, PoolKernel);

}  // namespace convgrad::cuda
