// dx[n,i,c] = sum over r, k of dy[n,o,k] * w[r,c,k], one thread an input element, word for word.
//
// Each input position gathers from the outputs that it was a part of, so nothing is ever added to twice.
#include "common_src/dispatch.h"
#include "common_src/long_sum.h"
#include "cuda_src/arch/launch.cuh"
#include "cuda_src/conv_kernels.h"
#include "cuda_src/reference/place.cuh"

namespace convgrad::cuda {
namespace {

template <typename Stored>
__global__ void reference_dgrad_kernel(ConvProblem p, const Stored* dy, const Stored* w, Stored* dx) {
  const int64_t C = p.group_in(), K = p.out_channels;
  const int64_t count = p.batch * p.inputs() * p.in_channels;
  for (int64_t at = first_element(); at < count; at += element_step()) {
    const int64_t channel = at % p.in_channels;
    const Place i = input_place(p.axis, at / p.in_channels);
    const int64_t group = channel / C, c = channel % C;
    const int64_t first_k = group * p.group_out();
    LongSum<Sum<Stored>> dx_nic;
    for_each_output(p.axis, i.at, [&](int64_t r, int64_t o) {
      const Stored* dy_no = dy + (i.n * p.outputs() + o) * K + first_k;
      const Stored* w_rc = w + (r * C + c) * K + first_k;
      for (int64_t k = 0; k < p.group_out(); ++k) dx_nic.add(widen(dy_no[k]) * widen(w_rc[k]));
    });
    store_sum(dx, at, dx_nic.value(), p.unrounded);
  }
}

}  // namespace

cudaError_t reference_dgrad(const ConvProblem& p, const void* dy, const void* w, void* dx,
                            cudaStream_t stream) {
  const int64_t count = p.batch * p.inputs() * p.in_channels;
  return dispatch(p.dtype, [&](auto tag) {
    using Stored = typename decltype(tag)::type;
    return launch_elements(reference_dgrad_kernel<Stored>, count, stream, p, static_cast<const Stored*>(dy),
                           static_cast<const Stored*>(w), static_cast<Stored*>(dx));
  });
}

}  // namespace convgrad::cuda
