// Computes average pooling and its gradient, one thread per result element:
//
//     y[n,o,c]  = (sum over r of x[n,i,c]) / count(o)
//     dx[n,i,c] =  sum over r of dy[n,o,c] / count(o)
//
// count(o) is a product over axes, because a tap is on the input if it is along every axis.
#include "common_src/dispatch.h"
#include "common_src/long_sum.h"
#include "common_src/window.h"
#include "cuda_src/arch/launch.cuh"
#include "cuda_src/pool_kernels.h"

namespace convgrad::cuda {
namespace {

// The divisor of an output's sum.
class Counts {
 public:
  __device__ explicit Counts(const PoolProblem& p)
      : problem_(p), tied_{taps_of_output(p.axis[0]), taps_of_output(p.axis[1]), taps_of_output(p.axis[2])} {}

  template <typename Value>
  __device__ Value at(const int64_t (&o)[kAxes]) const {
    if (problem_.sum) return Value{1};
    if (problem_.count_include_pad) return static_cast<Value>(problem_.taps());
    int64_t count = 1;
    for (int a = 0; a < kAxes; ++a)
      count *= tied_[a].from(problem_.axis[a].pad_lo - o[a] * problem_.axis[a].stride).count;
    return static_cast<Value>(count);
  }

 private:
  const PoolProblem& problem_;
  Tied tied_[kAxes];
};

template <typename Stored>
__global__ void reference_avg_pool_kernel(PoolProblem p, const Stored* x, Stored* y) {
  using Value = Sum<Stored>;
  const Counts counts(p);
  const int64_t count = p.batch * p.outputs() * p.channels;
  for (int64_t at = first_element(); at < count; at += element_step()) {
    const int64_t c = at % p.channels;
    const Coord o = output_coord(p.axis, at / p.channels);
    LongSum<Value> sum;
    for_each_input(p.axis, o.at,
                   [&](int64_t, int64_t i) { sum.add(widen(x[(o.n * p.inputs() + i) * p.channels + c])); });
    y[at] = narrow<Stored>(sum.value() / counts.template at<Value>(o.at));
  }
}

template <typename Stored>
__global__ void reference_avg_pool_grad_kernel(PoolProblem p, const Stored* dy, Stored* dx) {
  using Value = Sum<Stored>;
  const Counts counts(p);
  const int64_t count = p.batch * p.inputs() * p.channels;
  for (int64_t at = first_element(); at < count; at += element_step()) {
    const int64_t c = at % p.channels;
    const Coord i = input_coord(p.axis, at / p.channels);
    LongSum<Value> dx_nic;
    for_each_output(p.axis, i.at, [&](int64_t, int64_t flat_o) {
      const Coord o = output_coord(p.axis, flat_o);
      const Value dy_noc = widen(dy[(i.n * p.outputs() + flat_o) * p.channels + c]);
      dx_nic.add(dy_noc / counts.template at<Value>(o.at));
    });
    dx[at] = narrow<Stored>(dx_nic.value());
  }
}

}  // namespace

cudaError_t reference_avg_pool(const PoolProblem& p, const void* x, void* y, cudaStream_t stream) {
  const int64_t count = p.batch * p.outputs() * p.channels;
  return dispatch(p.dtype, [&](auto tag) {
    using Stored = typename decltype(tag)::type;
    return launch_elements(reference_avg_pool_kernel<Stored>, count, stream, p, static_cast<const Stored*>(x),
                           static_cast<Stored*>(y));
  });
}

cudaError_t reference_avg_pool_grad(const PoolProblem& p, const void* dy, void* dx, cudaStream_t stream) {
  const int64_t count = p.batch * p.inputs() * p.channels;
  return dispatch(p.dtype, [&](auto tag) {
    using Stored = typename decltype(tag)::type;
    return launch_elements(reference_avg_pool_grad_kernel<Stored>, count, stream, p,
                           static_cast<const Stored*>(dy), static_cast<Stored*>(dx));
  });
}

}  // namespace convgrad::cuda
