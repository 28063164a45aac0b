// Runs wgrad, and bgrad if it is wanted, with multistage tiles (filter.cuh), and adds their parts.
#include "cuda_src/arch/launch.cuh"
#include "cuda_src/block/choice.h"
#include "cuda_src/conv_kernels.h"
#include "cuda_src/gemm/filter.cuh"

namespace convgrad::cuda {

cudaError_t gemm_wgrad(const ConvProblem& p, bool tf32, const void* x, const void* dy, void* dw, void* db,
                       void* workspace, cudaStream_t stream) {
  const Split split = gemm_wgrad_split(p);
  void* partials = partials_of(p, split.parts, dw, workspace);
  GemmChoice choice = gemm_filter_choice(p, tf32);
  choice.wide = is_chunked(p, x, dy, dw);
  cudaError_t error = dispatch_gemm<GemmTile<kLargeTile.rows, kLargeTile.columns, 2>,
                                    GemmTile<kSmallFilterTile.rows, kSmallFilterTile.columns, 4>>(
      choice, [&](auto math, auto tile, auto wide) {
        return launch_gemm_filter<math.value, decltype(tile), wide.value>(p, split, x, dy, dw, db, partials,
                                                                          stream);
      });
  if (error != cudaSuccess || split.parts == 1) return error;
  const int64_t count = p.taps() * p.group_in() * p.out_channels;
  error = add_parts(p.result_dtype(), partials, dw, split.parts, count, stream);
  if (error != cudaSuccess || db == nullptr) return error;
  const void* db_partials = static_cast<char*>(partials) + split.parts * count * bytes_of_sum(p.dtype);
  return add_parts(p.dtype, db_partials, db, split.parts, p.out_channels, stream);
}

}  // namespace convgrad::cuda
