// Runs dgrad with wgmma: activation.cuh over the transposed problem. The stored filter is already K-major
// there; for TF32 it is rounded first.
#include "cuda_src/conv_kernels.h"
#include "cuda_src/wgmma/activation.cuh"
#include "cuda_src/wgmma/tf32_filter.h"

namespace convgrad::cuda {

cudaError_t wgmma_dgrad(const ConvProblem& p, const void* dy, const void* w, void* dx, void* workspace,
                        cudaStream_t stream) {
  const ConvProblem problem = p.transpose();
  switch (p.dtype) {
    case DType::kBF16:
      return launch_wgmma_activation<BFloat16, Major::kK>(problem, true, dy, w, dgrad_epilogue(p), dx,
                                                          stream);
    case DType::kF16:
      return launch_wgmma_activation<Float16, Major::kK>(problem, true, dy, w, dgrad_epilogue(p), dx, stream);
    case DType::kF32: {
      const cudaError_t error = round_to_tf32(static_cast<const float*>(w), static_cast<float*>(workspace),
                                              p.taps() * p.group_in() * p.out_channels, stream);
      if (error != cudaSuccess) return error;
      return launch_wgmma_activation<float, Major::kK>(problem, true, dy, workspace, dgrad_epilogue(p), dx,
                                                       stream);
    }
    case DType::kF64:
      break;
  }
  return cudaErrorInvalidValue;
}

}  // namespace convgrad::cuda
