// Writes results that have no terms: those in no phase (common_src/phase.h), for which the kernels over
// phases launch no block. They are written before those kernels run, over the whole result, at the speed of
// memory.
#include "common_src/dispatch.h"
#include "common_src/number.h"
#include "cuda_src/arch/launch.cuh"
#include "cuda_src/conv_kernels.h"

namespace convgrad::cuda {
namespace {

template <typename Stored>
__global__ void empty_sums_kernel(int64_t count, int64_t channels, Epilogue epilogue, Stored* y) {
  for (int64_t at = first_element(); at < count; at += element_step())
    store_sum(y, at, epilogue.finish_channel<Stored>(Sum<Stored>{0}, at % channels), epilogue.unrounded);
}

template <typename Word>
__global__ void clear_kernel(int64_t words, Word* to) {
  for (int64_t at = first_element(); at < words; at += element_step()) to[at] = Word{};
}

}  // namespace

cudaError_t clear(void* to, int64_t bytes, cudaStream_t stream) {
  if (bytes % 16 == 0 && reinterpret_cast<uintptr_t>(to) % 16 == 0)
    return launch_elements(clear_kernel<uint4>, bytes / 16, stream, bytes / 16, static_cast<uint4*>(to));
  return launch_elements(clear_kernel<uint16_t>, bytes / 2, stream, bytes / 2, static_cast<uint16_t*>(to));
}

cudaError_t clear_filter(const ConvProblem& p, Split split, void* dw, void* partials, cudaStream_t stream) {
  const int64_t count = p.taps() * p.group_in() * p.out_channels;
  if (partials == nullptr) return clear(dw, count * bytes_of(p.dtype), stream);
  return clear(partials, split.parts * count * bytes_of_sum(p.dtype), stream);
}

cudaError_t empty_sums(const ConvProblem& p, Epilogue epilogue, void* y, cudaStream_t stream) {
  const int64_t count = p.batch * p.outputs() * p.out_channels;
  if (epilogue.bias == nullptr) return clear(y, count * bytes_of(p.result_dtype()), stream);
  return dispatch(p.dtype, [&](auto tag) {
    using Stored = typename decltype(tag)::type;
    return launch_elements(empty_sums_kernel<Stored>, count, stream, count, p.out_channels, epilogue,
                           static_cast<Stored*>(y));
  });
}

}  // namespace convgrad::cuda
