// fprop on Hopper: wgmma_activation.cuh over the problem as it is; the filter's lines run along its columns
// k.
#include "cuda_src/conv_kernels.h"
#include "cuda_src/wgmma_activation.cuh"

namespace convgrad::cuda {

cudaError_t wgmma_fprop(const ConvProblem& p, const void* x, const void* w, void* y, cudaStream_t stream) {
  return launch_wgmma_activation<Major::kRows>(p, x, w, y, stream);
}

}  // namespace convgrad::cuda
