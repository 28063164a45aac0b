// Runs dgrad with multistage tiles: activation.cuh over the transposed problem.
#include "cuda_src/arch/launch.cuh"
#include "cuda_src/block/choice.h"
#include "cuda_src/conv_kernels.h"
#include "cuda_src/gemm/activation.cuh"

namespace convgrad::cuda {

cudaError_t gemm_dgrad(const ConvProblem& p, bool tf32, const void* dy, const void* w, void* dx,
                       cudaStream_t stream) {
  const ConvProblem problem = p.transpose();
  GemmChoice choice = gemm_activation_choice(problem, tf32);
  choice.wide = is_chunked(problem, dy, w, dx);
  return dispatch_gemm<GemmTile<kLargeTile.rows, kLargeTile.columns, 2>,
                       GemmTile<kSmallActivationTile.rows, kSmallActivationTile.columns, 4>>(
      choice, [&](auto math, auto tile, auto wide) {
        return launch_gemm_activation<math.value, decltype(tile), GemmFilterKMajor, wide.value>(
            problem, dy, w, dgrad_epilogue(p), dx, stream);
      });
}

}  // namespace convgrad::cuda
