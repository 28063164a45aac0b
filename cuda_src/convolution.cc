// fprop, dgrad and wgrad: the plan's kernel for the problem, launched.
#include "cuda_src/conv_kernels.h"
#include "cuda_src/kernels.h"

namespace convgrad::cuda {

cudaError_t fprop(const ConvProblem& p, ConvKernel requested, const void* x, const void* w, void* y,
                  cudaStream_t stream) {
  const ConvKernel kernel = choose_kernel(p, ConvOp::kFprop, requested);
  if (kernel == ConvKernel::kGrouped) return grouped_fprop(p, x, w, y, stream);
  if (kernel == ConvKernel::kTiled) return tiled_fprop(p, x, w, y, stream);
  return direct_fprop(p, x, w, y, stream);
}

cudaError_t dgrad(const ConvProblem& p, ConvKernel requested, const void* dy, const void* w, void* dx,
                  cudaStream_t stream) {
  const ConvKernel kernel = choose_kernel(p, ConvOp::kDgrad, requested);
  if (kernel == ConvKernel::kGrouped) return grouped_dgrad(p, dy, w, dx, stream);
  if (kernel == ConvKernel::kTiled) return tiled_dgrad(p, dy, w, dx, stream);
  return direct_dgrad(p, dy, w, dx, stream);
}

cudaError_t wgrad(const ConvProblem& p, ConvKernel requested, const void* x, const void* dy, void* dw,
                  void* workspace, cudaStream_t stream) {
  const ConvKernel kernel = choose_kernel(p, ConvOp::kWgrad, requested);
  if (kernel == ConvKernel::kGrouped) return grouped_wgrad(p, x, dy, dw, workspace, stream);
  if (kernel == ConvKernel::kTiled) return tiled_wgrad(p, x, dy, dw, workspace, stream);
  return direct_wgrad(p, x, dy, dw, stream);
}

}  // namespace convgrad::cuda
