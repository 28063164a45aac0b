// Runs wgrad for few input channels (filter.cuh) and adds its parts.
#include "cuda_src/few_channels/dispatch.h"
#include "cuda_src/few_channels/filter.cuh"
#include "cuda_src/split.h"

namespace convgrad::cuda {

cudaError_t few_channels_wgrad(const ConvProblem& p, bool tf32, const void* x, const void* dy, void* dw,
                               void* workspace, cudaStream_t stream) {
  const FewChannelsSplit split = few_channels_filter_split(p);
  void* partials = partials_of(p, split.parts, dw, workspace);
  const cudaError_t error = dispatch_few_channels(
      p, few_channels_plan(p, true).paired, math_of(p.dtype, tf32), has_chunked_columns(p, dy, dw, partials),
      [&](auto math, auto columns, auto paired, auto wide) {
        return launch_few_channels_filter<math.value, columns.value, paired.value, wide.value>(
            p, split, x, dy, dw, partials, stream);
      });
  if (error != cudaSuccess || split.parts == 1) return error;
  return add_parts(p.result_dtype(), partials, dw, split.parts, p.taps() * p.in_channels * p.out_channels,
                   stream);
}

}  // namespace convgrad::cuda
