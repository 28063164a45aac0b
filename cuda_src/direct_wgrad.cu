// dw[r,c,k] = sum over n, o of x[n,i,c] * dy[n,o,k], one thread a filter element, word for word.
#include "cuda_src/conv_kernels.h"
#include "cuda_src/launch.cuh"
#include "cuda_src/place.cuh"
#include "ffi_src/dispatch.h"
#include "ffi_src/long_sum.h"

namespace convgrad::cuda {
namespace {

template <typename Stored>
__global__ void direct_wgrad_kernel(ConvProblem p, const Stored* x, const Stored* dy, Stored* dw) {
  const int64_t C = p.group_in(), K = p.out_channels;
  const Axis &axis0 = p.axis[0], &axis1 = p.axis[1], &axis2 = p.axis[2];
  const int64_t count = p.taps() * C * K;
  for (int64_t at = first_element(); at < count; at += element_step()) {
    const int64_t k = at % K, c = at / K % C;
    const Place r = tap_place(p.axis, at / K / C);
    const int64_t channel = k / p.group_out() * C + c;
    LongSum<Sum<Stored>> dw_rck;
    for (int64_t n = 0; n < p.batch; ++n) {
      for (int64_t o0 = 0; o0 < axis0.output; ++o0) {
        const int64_t i0 = axis0.input_at(o0, r.at[0]);
        if (i0 == kNone) continue;
        for (int64_t o1 = 0; o1 < axis1.output; ++o1) {
          const int64_t i1 = axis1.input_at(o1, r.at[1]);
          if (i1 == kNone) continue;
          const Stored* x_row = x + ((n * axis0.input + i0) * axis1.input + i1) * axis2.input * p.in_channels;
          const Stored* dy_row = dy + ((n * axis0.output + o0) * axis1.output + o1) * axis2.output * K;
          for (int64_t o2 = 0; o2 < axis2.output; ++o2) {
            const int64_t i2 = axis2.input_at(o2, r.at[2]);
            if (i2 == kNone) continue;
            dw_rck.add(widen(x_row[i2 * p.in_channels + channel]) * widen(dy_row[o2 * K + k]));
          }
        }
      }
    }
    store_sum(dw, at, dw_rck.value(), p.unrounded);
  }
}

}  // namespace

cudaError_t direct_wgrad(const ConvProblem& p, const void* x, const void* dy, void* dw, cudaStream_t stream) {
  const int64_t count = p.taps() * p.group_in() * p.out_channels;
  return dispatch(p.dtype, [&](auto tag) {
    using Stored = typename decltype(tag)::type;
    return launch_elements(direct_wgrad_kernel<Stored>, count, stream, p, static_cast<const Stored*>(x),
                           static_cast<const Stored*>(dy), static_cast<Stored*>(dw));
  });
}

}  // namespace convgrad::cuda
