// Runs fprop with wgmma (activation.cuh). The stored filter is MN-major, which wgmma accepts for 16-bit
// numbers; for TF32 it must be K-major, so a rounded and transposed copy is made first.
#include "cuda_src/conv_kernels.h"
#include "cuda_src/wgmma/activation.cuh"
#include "cuda_src/wgmma/tf32_filter.h"

namespace convgrad::cuda {

cudaError_t wgmma_fprop(const ConvProblem& p, const void* x, const void* w, Epilogue epilogue, void* y,
                        void* workspace, cudaStream_t stream) {
  switch (p.dtype) {
    case DType::kBF16:
      return launch_wgmma_activation<BFloat16, Major::kMN>(p, false, x, w, epilogue, y, stream);
    case DType::kF16:
      return launch_wgmma_activation<Float16, Major::kMN>(p, false, x, w, epilogue, y, stream);
    case DType::kF32: {
      const cudaError_t error =
          transpose_to_tf32(static_cast<const float*>(w), static_cast<float*>(workspace), p.taps(),
                            p.group_in(), p.out_channels, stream);
      if (error != cudaSuccess) return error;
      return launch_wgmma_activation<float, Major::kK>(p, false, x, workspace, epilogue, y, stream);
    }
    case DType::kF64:
      break;
  }
  return cudaErrorInvalidValue;
}

}  // namespace convgrad::cuda
