// Average pooling, one thread a vector of channels of one output:
//
//     y[n,o,c] = (sum over r of x[n,i,c]) / count(o)
//
// The terms are added as the reference kernel adds them, so the bits are the same.
#include "common_src/dispatch.h"
#include "cuda_src/lanes.cuh"
#include "cuda_src/long_lanes.cuh"
#include "cuda_src/pool/kernels.h"
#include "cuda_src/pool/rows.cuh"
#include "cuda_src/pool/runs.cuh"

namespace convgrad::cuda {
namespace {

template <typename Stored, int kLanes, int kTaps>
__global__ void __launch_bounds__(kPoolThreads, 2)
    vector_avg_pool_kernel(PoolRows rows, PoolSource<TiedInputs> source, int32_t count_of_all,
                           const Stored* x, Stored* y) {
  using Value = Sum<Stored>;
  RowPlace o;
  if (!rows.find(o)) return;
  const Window window(source, o.at0, o.at1, o.at2);
  const Stored* x_nc = x + o.n * source.image + o.vector * kLanes;
  LongLanes<Value, kLanes, (kTaps > 0)> sum;
  for_each_tied<kTaps>(
      source, window, [&](int32_t i) { return load<kLanes>(x_nc + i * source.channels); },
      [&](const Lanes<Stored, kLanes>& x_nic, int32_t) { sum.add(widen_lanes(x_nic)); });
  const Value count = static_cast<Value>(count_of_all > 0 ? count_of_all : window.count());
  Lanes<Value, kLanes> y_noc = sum.value();
#pragma unroll
  for (Value& lane : y_noc.lane) lane /= count;
  store(y + rows.number(o) * kLanes, narrow_lanes<Stored>(y_noc));
}

}  // namespace

cudaError_t vector_avg_pool(const PoolProblem& p, const void* x, void* y, cudaStream_t stream) {
  return dispatch(p.dtype, [&](auto tag) {
    using Stored = typename decltype(tag)::type;
    return dispatch_lanes<Stored>(p.channels, fits_lanes<Stored>(x, y), [&](auto lanes) {
      constexpr int kLanes = decltype(lanes)::value;
      return dispatch_taps(p, [&](auto taps) {
        const PoolRows rows = output_rows(p, kLanes);
        const PoolSource<TiedInputs> source(p.axis, p.channels);
        return launch_rows(vector_avg_pool_kernel<Stored, kLanes, decltype(taps)::value>, rows, stream, rows,
                           source, uniform_count(p), static_cast<const Stored*>(x), static_cast<Stored*>(y));
      });
    });
  });
}

}  // namespace convgrad::cuda
