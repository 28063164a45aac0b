// result[e] = sum over part of partials[part,e]: the second half of every split sum, in the parts' order.
#include "cuda_src/conv_kernels.h"
#include "cuda_src/launch.cuh"
#include "ffi_src/dispatch.h"

namespace convgrad::cuda {
namespace {

template <typename Stored>
__global__ void add_parts_kernel(const Sum<Stored>* partials, Stored* result, int64_t parts, int64_t count) {
  for (int64_t e = first_element(); e < count; e += element_step()) {
    Sum<Stored> sum = 0;
    for (int64_t part = 0; part < parts; ++part) sum += partials[part * count + e];
    result[e] = narrow<Stored>(sum);
  }
}

}  // namespace

cudaError_t add_parts(DType dtype, const void* partials, void* result, int64_t parts, int64_t count,
                      cudaStream_t stream) {
  return dispatch(dtype, [&](auto tag) {
    using Stored = typename decltype(tag)::type;
    return launch_elements(add_parts_kernel<Stored>, count, stream, static_cast<const Sum<Stored>*>(partials),
                           static_cast<Stored*>(result), parts, count);
  });
}

}  // namespace convgrad::cuda
