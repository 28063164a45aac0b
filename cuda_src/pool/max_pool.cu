// Max pooling, and what it reads at the positions that it chose, one thread a vector of channels of one
// result:
//
//     y[n,o,c]        = max over r of x[n,i,c];  position[n,o,c] = the first such i
//     selected[n,o,c] = t[n,position[n,o,c],c]
//
// All of a usual window is loaded before the first comparison.
#include <cmath>

#include "common_src/dispatch.h"
#include "cuda_src/lanes.cuh"
#include "cuda_src/pool/kernels.h"
#include "cuda_src/pool/rows.cuh"
#include "cuda_src/pool/runs.cuh"

namespace convgrad::cuda {
namespace {

// Whether v takes the place of best: the first maximum stays, and a NaN is above every number.
template <typename Value>
__device__ __forceinline__ bool replaces(Value v, Value best) {
  return !(v <= best) && best == best;
}

template <typename Stored, int kLanes, int kTaps>
__global__ void __launch_bounds__(kPoolThreads, 2)
    vector_max_pool_kernel(PoolRows rows, PoolSource<TiedInputs> source, const Stored* x, Stored* y,
                           int32_t* position) {
  RowPlace o;
  if (!rows.find(o)) return;
  const Window window(source, o.at0, o.at1, o.at2);
  const int32_t c = o.vector * kLanes;
  const Stored* x_nc = x + o.n * source.image + c;

  // The first input is the maximum so far also where it is -infinity.
  Lanes<Stored, kLanes> y_noc = all_lanes<kLanes>(narrow<Stored>(-INFINITY));
  Lanes<int32_t, kLanes> first =
      all_lanes<kLanes>(window.count() > 0 ? window.first(source) : static_cast<int32_t>(kNone));
  for_each_tied<kTaps>(
      source, window, [&](int32_t i) { return load<kLanes>(x_nc + i * source.channels); },
      [&](const Lanes<Stored, kLanes>& x_nic, int32_t i) {
#pragma unroll
        for (int l = 0; l < kLanes; ++l) {
          const bool better = replaces(widen(x_nic.lane[l]), widen(y_noc.lane[l]));
          y_noc.lane[l] = better ? x_nic.lane[l] : y_noc.lane[l];
          first.lane[l] = better ? i : first.lane[l];
        }
      });
  const int64_t noc = rows.number(o) * kLanes;
  store(y + noc, y_noc);
  if (position != nullptr) store(position + noc, first);
}

// Positions and results go by vectors, and each t is read where its position says.
template <typename Stored, int kLanes>
__global__ void __launch_bounds__(kPoolThreads, 2)
    vector_max_pool_select_kernel(PoolRows rows, Divisor t_images, Divisor position_images, int32_t inputs,
                                  int32_t channels, const Stored* t, const int32_t* position,
                                  Stored* selected) {
  RowPlace o;
  if (!rows.find(o)) return;
  const int32_t c = o.vector * kLanes;
  const Stored* t_nc = t + int64_t{t_images.rest(o.n)} * inputs * channels + c;
  const Lanes<int32_t, kLanes> i =
      load<kLanes>(position + rows.number(o, position_images.rest(o.n)) * kLanes);
  Lanes<Stored, kLanes> selected_noc;
#pragma unroll
  for (int l = 0; l < kLanes; ++l) {
    // Positions are a buffer's content, which no handler has checked.
    const bool inside = i.lane[l] >= 0 && i.lane[l] < inputs;
    selected_noc.lane[l] = inside ? t_nc[i.lane[l] * channels + l] : narrow<Stored>(0);
  }
  store(selected + rows.number(o) * kLanes, selected_noc);
}

}  // namespace

cudaError_t vector_max_pool(const PoolProblem& p, const void* x, void* y, int32_t* position,
                            cudaStream_t stream) {
  return dispatch(p.dtype, [&](auto tag) {
    using Stored = typename decltype(tag)::type;
    return dispatch_lanes<Stored>(p.channels, fits_lanes<Stored>(x, y, position), [&](auto lanes) {
      constexpr int kLanes = decltype(lanes)::value;
      return dispatch_taps(p, [&](auto taps) {
        const PoolRows rows = output_rows(p, kLanes);
        const PoolSource<TiedInputs> source(p.axis, p.channels);
        return launch_rows(vector_max_pool_kernel<Stored, kLanes, decltype(taps)::value>, rows, stream, rows,
                           source, static_cast<const Stored*>(x), static_cast<Stored*>(y), position);
      });
    });
  });
}

cudaError_t vector_max_pool_select(const PoolProblem& p, const void* t, const int32_t* position,
                                   void* selected, cudaStream_t stream) {
  return dispatch(p.dtype, [&](auto tag) {
    using Stored = typename decltype(tag)::type;
    return dispatch_lanes<Stored>(
        p.channels, fits_lanes<Stored>(selected, selected, position), [&](auto lanes) {
          constexpr int kLanes = decltype(lanes)::value;
          const PoolRows rows = output_rows(p, kLanes);
          return launch_rows(vector_max_pool_select_kernel<Stored, kLanes>, rows, stream, rows,
                             Divisor(p.operand_batch), Divisor(p.position_batch),
                             static_cast<int32_t>(p.inputs()), static_cast<int32_t>(p.channels),
                             static_cast<const Stored*>(t), position, static_cast<Stored*>(selected));
        });
  });
}

}  // namespace convgrad::cuda
