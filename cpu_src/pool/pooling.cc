// Runs the bias gradient and pooling with the kernel that a call asks for: the reference kernels or vectors.
// Empty results return early, so that no kernel has to handle a size of zero.
#include "cpu_src/kernels.h"

namespace convgrad::cpu {
namespace {

bool has_inputs(const PoolProblem& p) { return p.batch * p.inputs() * p.channels > 0; }
bool has_outputs(const PoolProblem& p) { return p.batch * p.outputs() * p.channels > 0; }

}  // namespace

Work bgrad(const BiasProblem& problem, Request request, const void* dy, void* db, void* workspace) {
  if (request.kernel == Kernel::kReference) return reference_bgrad(problem, dy, db, workspace);
  return vector_bgrad(problem, request.isa, dy, db, workspace);
}

Work max_pool(const PoolProblem& problem, Request request, const void* x, void* y, int32_t* position) {
  if (!has_outputs(problem)) return {};
  Work work = request.kernel == Kernel::kReference ? reference_max_pool(problem, x, y, position)
                                                   : vector_max_pool(problem, request.isa, x, y, position);
  if (position && problem.position_rule != PositionRule::kFirstMaximum)
    work.stages.push_back(by_position_rule(problem, x, y, position));
  return work;
}

Work max_pool_grad(const PoolProblem& problem, Request request, const void* dy, const int32_t* position,
                   void* dx) {
  if (!has_inputs(problem)) return {};
  if (request.kernel == Kernel::kReference) return reference_max_pool_grad(problem, dy, position, dx);
  return vector_max_pool_grad(problem, request.isa, dy, position, dx);
}

Work avg_pool(const PoolProblem& problem, Request request, const void* x, void* y) {
  if (!has_outputs(problem)) return {};
  if (request.kernel == Kernel::kReference) return reference_avg_pool(problem, x, y);
  return vector_avg_pool(problem, request.isa, x, y);
}

Work avg_pool_grad(const PoolProblem& problem, Request request, const void* dy, void* dx) {
  if (!has_inputs(problem)) return {};
  if (request.kernel == Kernel::kReference) return reference_avg_pool_grad(problem, dy, dx);
  return vector_avg_pool_grad(problem, request.isa, dy, dx);
}

}  // namespace convgrad::cpu
