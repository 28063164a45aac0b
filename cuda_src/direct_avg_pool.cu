// Average pooling and its gradient, one thread a result element:
//
//     y[n,o,c]  = (sum over r of x[n,i,c]) / count(o)
//     dx[n,i,c] =  sum over r of dy[n,o,c] / count(o)
//
// count(o) is a product over axes, because a tap is on the input where it is so along every axis.
#include "cuda_src/launch.cuh"
#include "cuda_src/place.cuh"
#include "cuda_src/pool_kernels.h"
#include "ffi_src/dispatch.h"
#include "ffi_src/long_sum.h"

namespace convgrad::cuda {
namespace {

// The taps along one axis that count at its output o.
__device__ int64_t counted_taps(const Axis& axis, int64_t o, bool count_include_pad) {
  if (count_include_pad) return axis.taps;
  int64_t on_input = 0;
  for (int64_t r = 0; r < axis.taps; ++r) on_input += axis.input_at(o, r) != kNone;
  return on_input;
}

template <typename Value>
__device__ Value count_at(const PoolProblem& p, int64_t o0, int64_t o1, int64_t o2) {
  if (p.sum) return Value{1};
  return static_cast<Value>(counted_taps(p.axis[0], o0, p.count_include_pad) *
                            counted_taps(p.axis[1], o1, p.count_include_pad) *
                            counted_taps(p.axis[2], o2, p.count_include_pad));
}

template <typename Stored>
__global__ void avg_pool_kernel(PoolProblem p, const Stored* x, Stored* y) {
  using Value = Sum<Stored>;
  const int64_t count = p.batch * p.outputs() * p.channels;
  for (int64_t at = first_element(); at < count; at += element_step()) {
    const int64_t c = at % p.channels;
    const Place o = output_place(p.axis, at / p.channels);
    LongSum<Value> sum;
    for_each_input(p.axis, o.at,
                   [&](int64_t, int64_t i) { sum.add(widen(x[(o.n * p.inputs() + i) * p.channels + c])); });
    y[at] = narrow<Stored>(sum.value() / count_at<Value>(p, o.at[0], o.at[1], o.at[2]));
  }
}

template <typename Stored>
__global__ void avg_pool_grad_kernel(PoolProblem p, const Stored* dy, Stored* dx) {
  using Value = Sum<Stored>;
  const int64_t count = p.batch * p.inputs() * p.channels;
  for (int64_t at = first_element(); at < count; at += element_step()) {
    const int64_t c = at % p.channels;
    const Place i = input_place(p.axis, at / p.channels);
    LongSum<Value> dx_nic;
    for_each_output(p.axis, i.at, [&](int64_t, int64_t flat_o) {
      const Place o = output_place(p.axis, flat_o);
      const Value dy_noc = widen(dy[(i.n * p.outputs() + flat_o) * p.channels + c]);
      dx_nic.add(dy_noc / count_at<Value>(p, o.at[0], o.at[1], o.at[2]));
    });
    dx[at] = narrow<Stored>(dx_nic.value());
  }
}

}  // namespace

cudaError_t direct_avg_pool(const PoolProblem& p, const void* x, void* y, cudaStream_t stream) {
  const int64_t count = p.batch * p.outputs() * p.channels;
  return dispatch(p.dtype, [&](auto tag) {
    using Stored = typename decltype(tag)::type;
    return launch_elements(avg_pool_kernel<Stored>, count, stream, p, static_cast<const Stored*>(x),
                           static_cast<Stored*>(y));
  });
}

cudaError_t direct_avg_pool_grad(const PoolProblem& p, const void* dy, void* dx, cudaStream_t stream) {
  const int64_t count = p.batch * p.inputs() * p.channels;
  return dispatch(p.dtype, [&](auto tag) {
    using Stored = typename decltype(tag)::type;
    return launch_elements(avg_pool_grad_kernel<Stored>, count, stream, p, static_cast<const Stored*>(dy),
                           static_cast<Stored*>(dx));
  });
}

}  // namespace convgrad::cuda
