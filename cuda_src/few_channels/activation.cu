// Runs fprop and dgrad with few channels on the gathered side (fprop's input, dgrad's output gradient), both
// with activation.cuh; dgrad is the transposed problem.
#include "common_src/major.h"
#include "cuda_src/few_channels/activation.cuh"
#include "cuda_src/few_channels/dispatch.h"

namespace convgrad::cuda {
namespace {

cudaError_t launch(const ConvProblem& p, Major filter_major, bool tf32, const void* x, const void* w,
                   Epilogue epilogue, void* y, cudaStream_t stream) {
  return dispatch_few_channels(
      p, few_channels_plan(p, false).paired, math_of(p.dtype, tf32), has_chunked_columns(p, y),
      [&](auto math, auto columns, auto paired, auto wide) {
        return launch_few_channels_activation<math.value, columns.value, paired.value, wide.value>(
            p, filter_major, x, w, epilogue, y, stream);
      });
}

}  // namespace

cudaError_t few_channels_fprop(const ConvProblem& p, bool tf32, const void* x, const void* w,
                               Epilogue epilogue, void* y, cudaStream_t stream) {
  return launch(p, Major::kMN, tf32, x, w, epilogue, y, stream);
}

cudaError_t few_channels_dgrad(const ConvProblem& p, bool tf32, const void* dy, const void* w, void* dx,
                               cudaStream_t stream) {
  return launch(p.transpose(), Major::kK, tf32, dy, w, dgrad_epilogue(p), dx, stream);
}

}  // namespace convgrad::cuda
