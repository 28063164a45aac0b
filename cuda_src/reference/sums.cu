// y[n,o,k] = sum over r, c of x[n,i,c] * w[r,c,k] and the epilogue, one thread an output element, word for
// word.
//
// It serves every problem, and the other fprop kernels are held against it.
#include "common_src/dispatch.h"
#include "common_src/long_sum.h"
#include "cuda_src/arch/launch.cuh"
#include "cuda_src/conv_kernels.h"
#include "cuda_src/reference/place.cuh"

namespace convgrad::cuda {
namespace {

template <typename Stored>
__global__ void reference_fprop_kernel(ConvProblem p, const Stored* x, const Stored* w, Epilogue epilogue,
                                       Stored* y) {
  const int64_t C = p.group_in(), K = p.out_channels;
  const int64_t count = p.batch * p.outputs() * K;
  for (int64_t at = first_element(); at < count; at += element_step()) {
    const int64_t k = at % K;
    const Place o = output_place(p.axis, at / K);
    const int64_t group = k / p.group_out();
    LongSum<Sum<Stored>> y_nok;
    for_each_input(p.axis, o.at, [&](int64_t r, int64_t i) {
      const Stored* x_ni = x + (o.n * p.inputs() + i) * p.in_channels + group * C;
      const Stored* w_r = w + r * C * K;
      for (int64_t c = 0; c < C; ++c) y_nok.add(widen(x_ni[c]) * widen(w_r[c * K + k]));
    });
    store_sum(y, at, epilogue.finish_channel<Stored>(y_nok.value(), k), p.unrounded);
  }
}

}  // namespace

cudaError_t reference_fprop(const ConvProblem& p, const void* x, const void* w, Epilogue epilogue, void* y,
                            cudaStream_t stream) {
  const int64_t count = p.batch * p.outputs() * p.out_channels;
  return dispatch(p.dtype, [&](auto tag) {
    using Stored = typename decltype(tag)::type;
    return launch_elements(reference_fprop_kernel<Stored>, count, stream, p, static_cast<const Stored*>(x),
                           static_cast<const Stored*>(w), epilogue, static_cast<Stored*>(y));
  });
}

}  // namespace convgrad::cuda
