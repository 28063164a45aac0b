// Computes the sums of a convolution and its gradients directly from their formulas, one thread per result.
// These kernels serve every problem, and tests compare the other kernels with them.
//
//     y[n,o,k]  = sum over r, c of x[n,i,c] * w[r,c,k]
//     dx[n,i,c] = sum over r, k of dy[n,o,k] * w[r,c,k]
//     dw[r,c,k] = sum over n, o of x[n,i,c] * dy[n,o,k]
//     db[k]     = sum over n, o of dy[n,o,k]
#include "common_src/dispatch.h"
#include "common_src/long_sum.h"
#include "common_src/window.h"
#include "cuda_src/arch/launch.cuh"
#include "cuda_src/bias/plan.h"
#include "cuda_src/conv_kernels.h"
#include "cuda_src/pool_kernels.h"

namespace convgrad::cuda {
namespace {

// Computes y and its epilogue, one thread per output element.
template <typename Stored>
__global__ void reference_fprop_kernel(ConvProblem p, const Stored* x, const Stored* w, Epilogue epilogue,
                                       Stored* y) {
  const int64_t C = p.group_in(), K = p.out_channels;
  const int64_t count = p.batch * p.outputs() * K;
  for (int64_t at = first_element(); at < count; at += element_step()) {
    const int64_t k = at % K;
    const Coord o = output_coord(p.axis, at / K);
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

// Computes dx, one thread per input element. Each input gathers from the outputs that it contributed to, so
// no two threads write one element.
template <typename Stored>
__global__ void reference_dgrad_kernel(ConvProblem p, const Stored* dy, const Stored* w, Stored* dx) {
  const int64_t C = p.group_in(), K = p.out_channels;
  const int64_t count = p.batch * p.inputs() * p.in_channels;
  for (int64_t at = first_element(); at < count; at += element_step()) {
    const int64_t channel = at % p.in_channels;
    const Coord i = input_coord(p.axis, at / p.in_channels);
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

// Computes dw, one thread per filter element.
template <typename Stored>
__global__ void reference_wgrad_kernel(ConvProblem p, const Stored* x, const Stored* dy, Stored* dw) {
  const int64_t C = p.group_in(), K = p.out_channels;
  const Axis &axis0 = p.axis[0], &axis1 = p.axis[1], &axis2 = p.axis[2];
  const int64_t count = p.taps() * C * K;
  for (int64_t at = first_element(); at < count; at += element_step()) {
    const int64_t k = at % K, c = at / K % C;
    const Coord r = tap_coord(p.axis, at / K / C);
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

// Computes db in two sums: a thread adds one channel over one part of the rows, then the parts are added in
// order. Neighbouring threads have neighbouring channels, so a warp reads whole rows. `Result` is Stored if
// there is one part.
template <typename Stored, typename Result>
__global__ void reference_bgrad_kernel(BiasProblem p, Split split, const Stored* dy, Result* sums) {
  const int64_t count = split.parts * p.channels;
  for (int64_t at = first_element(); at < count; at += element_step()) {
    const int64_t c = at % p.channels;
    const int64_t first = at / p.channels * split.length;
    const int64_t end = first + split.length < p.rows ? first + split.length : p.rows;
    Sum<Stored> sum = 0;
    for (int64_t row = first; row < end; ++row) sum += widen(dy[row * p.channels + c]);
    sums[at] = narrow<Result>(sum);
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

cudaError_t reference_dgrad(const ConvProblem& p, const void* dy, const void* w, void* dx,
                            cudaStream_t stream) {
  const int64_t count = p.batch * p.inputs() * p.in_channels;
  return dispatch(p.dtype, [&](auto tag) {
    using Stored = typename decltype(tag)::type;
    return launch_elements(reference_dgrad_kernel<Stored>, count, stream, p, static_cast<const Stored*>(dy),
                           static_cast<const Stored*>(w), static_cast<Stored*>(dx));
  });
}

cudaError_t reference_wgrad(const ConvProblem& p, const void* x, const void* dy, void* dw,
                            cudaStream_t stream) {
  const int64_t count = p.taps() * p.group_in() * p.out_channels;
  return dispatch(p.dtype, [&](auto tag) {
    using Stored = typename decltype(tag)::type;
    return launch_elements(reference_wgrad_kernel<Stored>, count, stream, p, static_cast<const Stored*>(x),
                           static_cast<const Stored*>(dy), static_cast<Stored*>(dw));
  });
}

cudaError_t reference_bgrad(const BiasProblem& p, const void* dy, void* db, void* workspace,
                            cudaStream_t stream) {
  const Split split = reference_bgrad_split(p);
  const int64_t count = split.parts * p.channels;
  const bool one_part = split.parts == 1;
  const cudaError_t error = dispatch(p.dtype, [&](auto tag) {
    using Stored = typename decltype(tag)::type;
    const auto* rows = static_cast<const Stored*>(dy);
    if (one_part)
      return launch_elements(reference_bgrad_kernel<Stored, Stored>, count, stream, p, split, rows,
                             static_cast<Stored*>(db));
    return launch_elements(reference_bgrad_kernel<Stored, Sum<Stored>>, count, stream, p, split, rows,
                           static_cast<Sum<Stored>*>(workspace));
  });
  if (error != cudaSuccess || one_part) return error;
  return add_parts(p.dtype, workspace, db, split.parts, p.channels, stream);
}

}  // namespace convgrad::cuda
