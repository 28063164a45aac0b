// dgrad by staged tiles: activation.cuh over the transposed problem.
#include "cuda_src/arch/launch.cuh"
#include "cuda_src/conv_kernels.h"
#include "cuda_src/gemm/activation.cuh"
#include "cuda_src/gemm/choice.h"

namespace convgrad::cuda {

cudaError_t gemm_dgrad(const ConvProblem& p, bool tf32, const void* dy, const void* w, void* dx,
                       cudaStream_t stream) {
  const ConvProblem problem = p.transpose();
  GemmChoice choice = gemm_choice(problem, tf32, problem.batch * problem.outputs(), problem.group_out(), 128);
  choice.wide = is_chunked(problem, dy, w, dx);
  return dispatch_gemm<GemmTile<128, 128, 2>, GemmTile<128, 64, 4>>(
      choice, [&](auto math, auto tile, auto wide) {
        return launch_gemm_activation<math.value, decltype(tile), GemmFilterTransposed, wide.value>(
            problem, dy, w, dgrad_epilogue(p), dx, stream);
      });
}

}  // namespace convgrad::cuda
