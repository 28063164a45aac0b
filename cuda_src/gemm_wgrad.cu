// wgrad by staged tiles (gemm_filter.cuh), and the sum of its parts.
#include "cuda_src/conv_kernels.h"
#include "cuda_src/gemm_choice.h"
#include "cuda_src/gemm_filter.cuh"
#include "cuda_src/launch.cuh"

namespace convgrad::cuda {

cudaError_t gemm_wgrad(const ConvProblem& p, bool tf32, const void* x, const void* dy, void* dw,
                       void* workspace, cudaStream_t stream) {
  const Split split = gemm_wgrad_split(p);
  void* partials = split.parts == 1 ? nullptr : workspace;
  const int64_t rows = p.taps() * p.group_in();
  GemmChoice choice = gemm_choice(p, tf32, rows, p.group_out(), 64);
  choice.wide = is_chunked(p, x, dy, dw);
  const cudaError_t error =
      dispatch_gemm<GemmTile<128, 128, 2>, GemmTile<64, 64, 4>>(choice, [&](auto math, auto tile, auto wide) {
        return launch_gemm_filter<math.value, decltype(tile), wide.value>(p, split, x, dy, dw, partials,
                                                                          stream);
      });
  if (error != cudaSuccess || partials == nullptr) return error;
  return add_parts(p.dtype, partials, dw, split.parts, rows * p.out_channels, stream);
}

}  // namespace convgrad::cuda
