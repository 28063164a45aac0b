// fprop, dgrad and wgrad: the plan's kernel for the problem, launched.
#include "cuda_src/conv_kernels.h"
#include "cuda_src/kernels.h"

namespace convgrad::cuda {
namespace {

// The first number of the current device's compute capability, 0 where it cannot be told.
int capability() {
  int device = 0, major = 0;
  if (cudaGetDevice(&device) != cudaSuccess ||
      cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device) != cudaSuccess)
    return 0;
  return major;
}

}  // namespace

cudaError_t fprop(const ConvProblem& p, Request request, const void* x, const void* w, Epilogue epilogue,
                  void* y, cudaStream_t stream) {
  switch (choose_kernel(p, ConvOp::kFprop, request.kernel, capability())) {
    case ConvKernel::kGemm:
      return gemm_fprop(p, request.tf32, x, w, epilogue, y, stream);
    case ConvKernel::kGrouped:
      return grouped_fprop(p, x, w, epilogue, y, stream);
    case ConvKernel::kTiled:
      return tiled_fprop(p, x, w, epilogue, y, stream);
    default:
      return direct_fprop(p, x, w, epilogue, y, stream);
  }
}

cudaError_t dgrad(const ConvProblem& p, Request request, const void* dy, const void* w, void* dx,
                  cudaStream_t stream) {
  switch (choose_kernel(p, ConvOp::kDgrad, request.kernel, capability())) {
    case ConvKernel::kGemm:
      return gemm_dgrad(p, request.tf32, dy, w, dx, stream);
    case ConvKernel::kGrouped:
      return grouped_dgrad(p, dy, w, dx, stream);
    case ConvKernel::kTiled:
      return tiled_dgrad(p, dy, w, dx, stream);
    default:
      return direct_dgrad(p, dy, w, dx, stream);
  }
}

cudaError_t wgrad(const ConvProblem& p, Request request, const void* x, const void* dy, void* dw,
                  void* workspace, cudaStream_t stream) {
  switch (choose_kernel(p, ConvOp::kWgrad, request.kernel, capability())) {
    case ConvKernel::kGemm:
      return gemm_wgrad(p, request.tf32, x, dy, dw, nullptr, workspace, stream);
    case ConvKernel::kGrouped:
      return grouped_wgrad(p, x, dy, dw, workspace, stream);
    case ConvKernel::kTiled:
      return tiled_wgrad(p, x, dy, dw, workspace, stream);
    default:
      return direct_wgrad(p, x, dy, dw, stream);
  }
}

cudaError_t wgrad_bgrad(const ConvProblem& p, Request request, const void* x, const void* dy, void* dw,
                        void* db, void* workspace, cudaStream_t stream) {
  // A filter of nothing has no blocks that could add up dy.
  if (choose_kernel(p, ConvOp::kWgrad, request.kernel, capability()) == ConvKernel::kGemm &&
      p.taps() * p.group_in() > 0)
    return gemm_wgrad(p, request.tf32, x, dy, dw, db, workspace, stream);
  const cudaError_t error = wgrad(p, request, x, dy, dw, workspace, stream);
  if (error != cudaSuccess) return error;
  // One after the other, so that they can share the workspace.
  const PoolKernel kernel = request.kernel == ConvKernel::kDirect ? PoolKernel::kDirect : PoolKernel::kVector;
  return bgrad(bias_problem(p), kernel, dy, db, workspace, stream);
}

}  // namespace convgrad::cuda
