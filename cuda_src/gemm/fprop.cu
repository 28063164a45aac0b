// Runs fprop with multistage tiles (activation.cuh).
#include "cuda_src/arch/launch.cuh"
#include "cuda_src/block/choice.h"
#include "cuda_src/conv_kernels.h"
#include "cuda_src/gemm/activation.cuh"

namespace convgrad::cuda {

cudaError_t gemm_fprop(const ConvProblem& p, bool tf32, const void* x, const void* w, Epilogue epilogue,
                       void* y, cudaStream_t stream) {
  GemmChoice choice = gemm_activation_choice(p, tf32);
  choice.wide = is_chunked(p, x, w, y);
  return dispatch_gemm<GemmTile<kLargeTile.rows, kLargeTile.columns, 2>,
                       GemmTile<kSmallActivationTile.rows, kSmallActivationTile.columns, 4>>(
      choice, [&](auto math, auto tile, auto wide) {
        return launch_gemm_activation<math.value, decltype(tile), GemmFilterMNMajor, wide.value>(
            p, x, w, epilogue, y, stream);
      });
}

}  // namespace convgrad::cuda
