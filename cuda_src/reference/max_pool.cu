// Computes max pooling, its gradient and its jvp, one thread per result element:
//
//     y[n,o,c]        = max over r of x[n,i,c];  position[n,o,c] = the first such i
//     dx[n,i,c]       = sum over r of dy[n,o,c] where position[n,o,c] = i
//     selected[n,o,c] = t[n,position[n,o,c],c]
//
// The gradient gathers: each input asks every window that holds it whether the window chose it. No two
// threads write one element, so overlapping windows need no atomics.
#include <cmath>

#include "common_src/dispatch.h"
#include "common_src/window.h"
#include "cuda_src/arch/launch.cuh"
#include "cuda_src/pool_kernels.h"

namespace convgrad::cuda {
namespace {

// Reports whether v replaces best. The first of equal maxima stays, and NaN exceeds every number.
template <typename Value>
__device__ bool replaces(Value v, Value best) {
  const bool v_is_nan = v != v, best_is_nan = best != best;
  return v > best || (v_is_nan && !best_is_nan);
}

template <typename Stored>
__global__ void reference_max_pool_kernel(PoolProblem p, const Stored* x, Stored* y, int32_t* position) {
  const int64_t count = p.batch * p.outputs() * p.channels;
  for (int64_t at = first_element(); at < count; at += element_step()) {
    const int64_t c = at % p.channels;
    const Coord o = output_coord(p.axis, at / p.channels);
    Stored y_noc = narrow<Stored>(-INFINITY);
    int64_t first = kNone;
    for_each_input(p.axis, o.at, [&](int64_t, int64_t i) {
      const Stored x_nic = x[(o.n * p.inputs() + i) * p.channels + c];
      if (first == kNone || replaces(widen(x_nic), widen(y_noc))) {
        y_noc = x_nic;
        first = i;
      }
    });
    y[at] = y_noc;
    if (position != nullptr) position[at] = static_cast<int32_t>(first);
  }
}

template <typename Stored>
__global__ void reference_max_pool_grad_kernel(PoolProblem p, const Stored* dy, const int32_t* position,
                                               Stored* dx) {
  const int64_t count = p.batch * p.inputs() * p.channels;
  for (int64_t at = first_element(); at < count; at += element_step()) {
    const int64_t c = at % p.channels;
    const int64_t flat_i = at / p.channels % p.inputs();
    const Coord i = input_coord(p.axis, at / p.channels);
    Sum<Stored> dx_nic = 0;
    for_each_output(p.axis, i.at, [&](int64_t, int64_t o) {
      const auto oc_of = [&](int64_t n) { return (n * p.outputs() + o) * p.channels + c; };
      if (position[oc_of(i.n % p.position_batch)] == flat_i)
        dx_nic += widen(dy[oc_of(i.n % p.operand_batch)]);
    });
    dx[at] = narrow<Stored>(dx_nic);
  }
}

template <typename Stored>
__global__ void reference_max_pool_select_kernel(PoolProblem p, const Stored* t, const int32_t* position,
                                                 Stored* selected) {
  const int64_t count = p.batch * p.outputs() * p.channels;
  for (int64_t at = first_element(); at < count; at += element_step()) {
    const int64_t c = at % p.channels;
    const int64_t image = p.outputs() * p.channels;
    const int64_t n = at / image;
    const int64_t i = position[n % p.position_batch * image + at % image];
    // Positions are a buffer's content, which no handler has checked.
    const bool inside = i >= 0 && i < p.inputs();
    selected[at] = inside ? t[(n % p.operand_batch * p.inputs() + i) * p.channels + c] : narrow<Stored>(0);
  }
}

}  // namespace

cudaError_t reference_max_pool(const PoolProblem& p, const void* x, void* y, int32_t* position,
                               cudaStream_t stream) {
  const int64_t count = p.batch * p.outputs() * p.channels;
  return dispatch(p.dtype, [&](auto tag) {
    using Stored = typename decltype(tag)::type;
    return launch_elements(reference_max_pool_kernel<Stored>, count, stream, p, static_cast<const Stored*>(x),
                           static_cast<Stored*>(y), position);
  });
}

cudaError_t reference_max_pool_grad(const PoolProblem& p, const void* dy, const int32_t* position, void* dx,
                                    cudaStream_t stream) {
  const int64_t count = p.batch * p.inputs() * p.channels;
  return dispatch(p.dtype, [&](auto tag) {
    using Stored = typename decltype(tag)::type;
    return launch_elements(reference_max_pool_grad_kernel<Stored>, count, stream, p,
                           static_cast<const Stored*>(dy), position, static_cast<Stored*>(dx));
  });
}

cudaError_t reference_max_pool_select(const PoolProblem& p, const void* t, const int32_t* position,
                                      void* selected, cudaStream_t stream) {
  const int64_t count = p.batch * p.outputs() * p.channels;
  return dispatch(p.dtype, [&](auto tag) {
    using Stored = typename decltype(tag)::type;
    return launch_elements(reference_max_pool_select_kernel<Stored>, count, stream, p,
                           static_cast<const Stored*>(t), position, static_cast<Stored*>(selected));
  });
}

}  // namespace convgrad::cuda
