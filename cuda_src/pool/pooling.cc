// Runs the bias gradient and pooling with the kernel that a call asks for: the reference kernels or vectors.
// Empty results return early, so that no kernel has to handle a size of zero.
#include "cuda_src/kernels.h"
#include "cuda_src/pool_kernels.h"

namespace convgrad::cuda {
namespace {

bool is_reference(const PoolProblem& p, PoolKernel requested) {
  return choose_kernel(p, requested) == PoolKernel::kReference;
}

bool has_inputs(const PoolProblem& p) { return p.batch * p.inputs() * p.channels > 0; }
bool has_outputs(const PoolProblem& p) { return p.batch * p.outputs() * p.channels > 0; }

}  // namespace

cudaError_t bgrad(const BiasProblem& p, PoolKernel requested, const void* dy, void* db, void* workspace,
                  cudaStream_t stream) {
  if (p.channels == 0) return cudaSuccess;
  if (requested == PoolKernel::kReference) return reference_bgrad(p, dy, db, workspace, stream);
  return vector_bgrad(p, dy, db, workspace, stream);
}

cudaError_t max_pool(const PoolProblem& p, PoolKernel requested, const void* x, void* y, int32_t* position,
                     cudaStream_t stream) {
  if (!has_outputs(p)) return cudaSuccess;
  const cudaError_t error = is_reference(p, requested) ? reference_max_pool(p, x, y, position, stream)
                                                       : vector_max_pool(p, x, y, position, stream);
  if (error != cudaSuccess || position == nullptr || p.position_rule == PositionRule::kFirstMaximum)
    return error;
  return by_position_rule(p, x, y, position, stream);
}

cudaError_t max_pool_grad(const PoolProblem& p, PoolKernel requested, const void* dy, const int32_t* position,
                          void* dx, cudaStream_t stream) {
  if (!has_inputs(p)) return cudaSuccess;
  if (is_reference(p, requested)) return reference_max_pool_grad(p, dy, position, dx, stream);
  return vector_max_pool_grad(p, dy, position, dx, stream);
}

cudaError_t max_pool_select(const PoolProblem& p, PoolKernel requested, const void* t,
                            const int32_t* position, void* selected, cudaStream_t stream) {
  if (!has_outputs(p)) return cudaSuccess;
  if (is_reference(p, requested)) return reference_max_pool_select(p, t, position, selected, stream);
  return vector_max_pool_select(p, t, position, selected, stream);
}

cudaError_t avg_pool(const PoolProblem& p, PoolKernel requested, const void* x, void* y,
                     cudaStream_t stream) {
  if (!has_outputs(p)) return cudaSuccess;
  if (is_reference(p, requested)) return reference_avg_pool(p, x, y, stream);
  return vector_avg_pool(p, x, y, stream);
}

cudaError_t avg_pool_grad(const PoolProblem& p, PoolKernel requested, const void* dy, void* dx,
                          cudaStream_t stream) {
  if (!has_inputs(p)) return cudaSuccess;
  if (is_reference(p, requested)) return reference_avg_pool_grad(p, dy, dx, stream);
  return vector_avg_pool_grad(p, dy, dx, stream);
}

}  // namespace convgrad::cuda
