// Runs fprop, dgrad and wgrad: plans the problem and launches the chosen kernel.
#include <algorithm>
#include <cstdint>
#include <stdexcept>

#include "cuda_src/arch/encode.h"
#include "cuda_src/conv_kernels.h"
#include "cuda_src/flatten.h"
#include "cuda_src/is_empty.h"
#include "cuda_src/kernels.h"
#include "cuda_src/split.h"

namespace convgrad::cuda {
namespace {

// Returns the current device's major compute capability, or 0 if it is unknown. Reports 8 for a device of 9
// if the module was compiled without sm_90a kernels or the driver cannot encode tensor maps.
int capability() {
  int device = 0, major = 0;
  if (cudaGetDevice(&device) != cudaSuccess ||
      cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device) != cudaSuccess)
    return 0;
#ifdef CONVGRAD_HAS_SM90A
  const bool hopper = tensor_maps_available();
#else
  const bool hopper = false;
#endif
  return major == 9 && !hopper ? 8 : major;
}

bool aligned(const void* array) { return reinterpret_cast<uintptr_t>(array) % 16 == 0; }

// Applies the plan to this device and these arrays.
Kernel choose(Op op, const ConvProblem& p, Request request, const void* a, const void* b,
              const void* result) {
  const int device = capability();
  const Kernel kernel = plan(op, p, request, device).kernel;
  if (is_empty(p))
    return Kernel::kReference;  // the other kernels divide by sizes; reference handles empty sums
  if (kernel != Kernel::kWgmma || (aligned(a) && aligned(b) && aligned(result))) return kernel;
  if (request.kernel == Kernel::kWgmma)
    throw std::invalid_argument(
        "jax_convgrad: the kernel \"wgmma\" needs arrays that begin at multiples of 16 bytes");
  return plan(op, p, request, std::min(device, 8)).kernel;
}

}  // namespace

cudaError_t fprop(const ConvProblem& problem, Request request, const void* x, const void* w,
                  Epilogue epilogue, void* y, void* workspace, cudaStream_t stream) {
  const ConvProblem p = flatten(problem);
  switch (choose(Op::kFprop, p, request, x, w, y)) {
    case Kernel::kWgmma:
      return wgmma_fprop(p, x, w, epilogue, y, workspace, stream);
    case Kernel::kGemm:
      return gemm_fprop(p, request.tf32, x, w, epilogue, y, stream);
    case Kernel::kFewChannels:
      return few_channels_fprop(p, request.tf32, x, w, epilogue, y, stream);
    case Kernel::kGrouped:
      return grouped_fprop(p, x, w, epilogue, y, stream);
    case Kernel::kTiled:
      return tiled_fprop(p, x, w, epilogue, y, stream);
    default:
      return reference_fprop(p, x, w, epilogue, y, stream);
  }
}

cudaError_t dgrad(const ConvProblem& problem, Request request, const void* dy, const void* w, void* dx,
                  void* workspace, cudaStream_t stream) {
  const ConvProblem p = flatten(problem);
  switch (choose(Op::kDgrad, p, request, dy, w, dx)) {
    case Kernel::kWgmma:
      return wgmma_dgrad(p, dy, w, dx, workspace, stream);
    case Kernel::kGemm:
      return gemm_dgrad(p, request.tf32, dy, w, dx, stream);
    case Kernel::kFewChannels:
      return few_channels_dgrad(p, request.tf32, dy, w, dx, stream);
    case Kernel::kGrouped:
      return grouped_dgrad(p, dy, w, dx, stream);
    case Kernel::kTiled:
      return tiled_dgrad(p, dy, w, dx, stream);
    default:
      return reference_dgrad(p, dy, w, dx, stream);
  }
}

cudaError_t wgrad(const ConvProblem& problem, Request request, const void* x, const void* dy, void* dw,
                  void* workspace, cudaStream_t stream) {
  const ConvProblem p = flatten(problem);
  switch (choose(Op::kWgrad, p, request, x, dy, dw)) {
    case Kernel::kWgmma:
      return wgmma_wgrad(p, x, dy, dw, workspace, stream);
    case Kernel::kGemm:
      return gemm_wgrad(p, request.tf32, x, dy, dw, nullptr, workspace, stream);
    case Kernel::kFewChannels:
      return few_channels_wgrad(p, request.tf32, x, dy, dw, workspace, stream);
    case Kernel::kGrouped:
      return grouped_wgrad(p, x, dy, dw, workspace, stream);
    case Kernel::kTiled:
      return tiled_wgrad(p, x, dy, dw, workspace, stream);
    default:
      return reference_wgrad(p, x, dy, dw, stream);
  }
}

cudaError_t wgrad_bgrad(const ConvProblem& problem, Request request, const void* x, const void* dy, void* dw,
                        void* db, void* workspace, cudaStream_t stream) {
  const ConvProblem p = flatten(problem);
  if (choose(Op::kWgrad, p, request, x, dy, dw) == Kernel::kGemm && !filter_has_phases(p))
    return gemm_wgrad(p, request.tf32, x, dy, dw, db, workspace, stream);
  const cudaError_t error = wgrad(p, request, x, dy, dw, workspace, stream);
  if (error != cudaSuccess) return error;
  // bgrad runs after wgrad, so that they can share the workspace.
  const PoolKernel kernel =
      request.kernel == Kernel::kReference ? PoolKernel::kReference : PoolKernel::kVector;
  return bgrad(bias_problem(p), kernel, dy, db, workspace, stream);
}

}  // namespace convgrad::cuda
