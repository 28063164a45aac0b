// dw[r,c,k] = sum over n, o of x[n,i,c] * dy[n,o,k], one thread a filter element, word for word.
#include "common_src/dispatch.h"
#include "common_src/long_sum.h"
#include "cuda_src/arch/launch.cuh"
#include "cuda_src/conv_kernels.h"
#include "cuda_src/reference/place.cuh"

namespace convgrad::cuda {
namespace {

template <typename Stored>
__global__ void reference_wgrad_kernel(ConvProblem p, const Stored* x, const Stored* dy, Stored* dw) {
  const int64_t C = p.group_in(), K = p.out_channels;
  const Axis &axis0 = p.axis[0], &axis1 = p.axis[1], &axis2 = p.axis[2];
  const int64_t count = p.taps() * C * K;
  for (int64_t at = first_element(); at < count; at += element_step()) {
    const int64_t k = at % K, c = at / K % C;
    const Place r = tap_place(p.axis, at / K / C);
    const int64_t channel = k / p.group_out() * C + c;
    LongSum<Sum<Stored>> dw_rck;
    const auto tied = [&](int a) {
      return outputs_of_tap(p.axis[a]).from(p.axis[a].pad_lo - r.at[a] * p.axis[a].filter_dilation);
    };
    const Progression tied0 = tied(0), tied1 = tied(1), tied2 = tied(2);
    for (int64_t n = 0; n < p.batch; ++n) {
      for (int64_t j0 = 0; j0 < tied0.count; ++j0) {
        const int64_t x_plane = (n * axis0.input + tied0.partner_at(j0)) * axis1.input,
                      dy_plane = (n * axis0.output + tied0.at(j0)) * axis1.output;
        for (int64_t j1 = 0; j1 < tied1.count; ++j1) {
          const Stored* x_row = x + (x_plane + tied1.partner_at(j1)) * axis2.input * p.in_channels;
          const Stored* dy_row = dy + (dy_plane + tied1.at(j1)) * axis2.output * K;
          for (int64_t j2 = 0; j2 < tied2.count; ++j2)
            dw_rck.add(widen(x_row[tied2.partner_at(j2) * p.in_channels + channel]) *
                       widen(dy_row[tied2.at(j2) * K + k]));
        }
      }
    }
    store_sum(dw, at, dw_rck.value(), p.unrounded);
  }
}

}  // namespace

cudaError_t reference_wgrad(const ConvProblem& p, const void* x, const void* dy, void* dw,
                            cudaStream_t stream) {
  const int64_t count = p.taps() * p.group_in() * p.out_channels;
  return dispatch(p.dtype, [&](auto tag) {
    using Stored = typename decltype(tag)::type;
    return launch_elements(reference_wgrad_kernel<Stored>, count, stream, p, static_cast<const Stored*>(x),
                           static_cast<const Stored*>(dy), static_cast<Stored*>(dw));
  });
}

}  // namespace convgrad::cuda
