// dgrad on Hopper: wgmma_activation.cuh over the transposed problem; the filter's lines run along the depth
// k.
#include "cuda_src/conv_kernels.h"
#include "cuda_src/wgmma_activation.cuh"

namespace convgrad::cuda {

cudaError_t wgmma_dgrad(const ConvProblem& p, const void* dy, const void* w, void* dx, cudaStream_t stream) {
  return launch_wgmma_activation<Major::kDepth>(p.transpose(), dy, w, dx, stream);
}

}  // namespace convgrad::cuda
