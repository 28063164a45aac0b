// fprop by staged tiles: activation.cuh over the problem as it is.
#include "cuda_src/arch/launch.cuh"
#include "cuda_src/conv_kernels.h"
#include "cuda_src/gemm/activation.cuh"
#include "cuda_src/gemm/choice.h"

namespace convgrad::cuda {

cudaError_t gemm_fprop(const ConvProblem& p, bool tf32, const void* x, const void* w, Epilogue epilogue,
                       void* y, cudaStream_t stream) {
  GemmChoice choice = gemm_choice(p, tf32, p.batch * p.outputs(), p.group_out(), 128);
  choice.wide = is_chunked(p, x, w, y);
  return dispatch_gemm<GemmTile<128, 128, 2>, GemmTile<128, 64, 4>>(
      choice, [&](auto math, auto tile, auto wide) {
        return launch_gemm_activation<math.value, decltype(tile), GemmFilterAsStored, wide.value>(
            p, x, w, epilogue, y, stream);
      });
}

}  // namespace convgrad::cuda
