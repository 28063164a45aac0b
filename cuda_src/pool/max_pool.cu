// Computes max pooling, its gradient and its jvp with vectors of channels:
//
//     y[n,o,c]        = max over r of x[n,i,c];  position[n,o,c] = the first such i
//     dx[n,i,c]       = sum over r of dy[n,o,c] where position[n,o,c] = i
//     selected[n,o,c] = t[n,position[n,o,c],c]
//
// Forward, a thread computes a vector of channels of one result and loads all of a usual window before the
// first comparison. The gradient gathers: inputs ask the windows that hold them whether they were chosen
// there, so no two threads write one number. For the usual windows a thread computes a vector of channels of
// a cell of inputs (cells.cuh), for others of one input.
#include <cmath>

#include "common_src/dispatch.h"
#include "cuda_src/lanes.cuh"
#include "cuda_src/pool/cells.cuh"
#include "cuda_src/pool/rows.cuh"
#include "cuda_src/pool/runs.cuh"
#include "cuda_src/pool_kernels.h"

namespace convgrad::cuda {
namespace {

// Reports whether v replaces best. The first of equal maxima stays, and NaN exceeds every number.
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

  // The first input counts as the maximum so far even if it is -infinity.
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

// Reads positions and writes results in vectors, and reads each t at its position.
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

// The vectors of both operands at one output.
template <typename Stored, int kLanes>
struct Chosen {
  Lanes<int32_t, kLanes> position;
  Lanes<Stored, kLanes> dy;

  // An input that was not chosen adds 0, which does not change a sum that began with 0.
  __device__ __forceinline__ void add_to(Lanes<Sum<Stored>, kLanes>& dx_nic, int32_t i) const {
#pragma unroll
    for (int l = 0; l < kLanes; ++l)
      dx_nic.lane[l] += position.lane[l] == i ? widen(dy.lane[l]) : Sum<Stored>{0};
  }
};

// Maps the result's image n to the operands' images.
struct OperandImages {
  Divisor dy, position;
};

// The start of the two operands' vectors of one image.
template <typename Stored, int kLanes>
struct ChosenImage {
  const Stored* dy;
  const int32_t* position;
  int32_t channels;

  __device__ __forceinline__ ChosenImage(const OperandImages& images, const PoolSource<TiedOutputs>& source,
                                         const RowPlace& i, const Stored* dy, const int32_t* position)
      : dy(dy + images.dy.rest(i.n) * source.image + i.vector * kLanes),
        position(position + images.position.rest(i.n) * source.image + i.vector * kLanes),
        channels(source.channels) {}

  __device__ __forceinline__ Chosen<Stored, kLanes> at(int32_t o) const {
    return {load<kLanes>(position + o * channels), load<kLanes>(dy + o * channels)};
  }
};

template <typename Stored, int kLanes>
__global__ void __launch_bounds__(kPoolThreads, 2)
    vector_max_pool_grad_kernel(PoolRows rows, PoolSource<TiedOutputs> source, OperandImages images,
                                int32_t size1, int32_t size2, const Stored* dy, const int32_t* position,
                                Stored* dx) {
  RowPlace i;
  if (!rows.find(i)) return;
  const Window window(source, i.at0, i.at1, i.at2);
  const ChosenImage<Stored, kLanes> chosen(images, source, i, dy, position);
  const int32_t flat_i = (i.at0 * size1 + i.at1) * size2 + i.at2;
  auto dx_nic = all_lanes<kLanes>(Sum<Stored>{0});
  for_each_tied<0>(
      source, window, [&](int32_t o) { return chosen.at(o); },
      [&](const Chosen<Stored, kLanes>& at_o, int32_t) { at_o.add_to(dx_nic, flat_i); });
  store(dx + rows.number(i) * kLanes, narrow_lanes<Stored>(dx_nic));
}

template <typename Stored, int kLanes, typename Cell>
__global__ void __launch_bounds__(kPoolThreads, 2)
    cell_max_pool_grad_kernel(PoolRows rows, PoolCells<Cell> cells, PoolSource<TiedOutputs> source,
                              OperandImages images, const Stored* dy, const int32_t* position, Stored* dx) {
  RowPlace place;
  if (!rows.find(place)) return;
  CellSums<Stored, kLanes, Cell> cell(cells, place);
  const ChosenImage<Stored, kLanes> chosen(images, source, place, dy, position);
  const Chosen<Stored, kLanes> none{all_lanes<kLanes>(static_cast<int32_t>(kNone)),
                                    all_lanes<kLanes>(narrow<Stored>(0))};

  const Run run0 = source.tied[0](place.at0);
  for (int32_t k0 = 0; k0 < run0.count; ++k0) {
    const int32_t o0 = run0.first + k0 * source.tied[0].step();
    // The loads of one row of windows are in flight together; more would not fit the registers.
#pragma unroll 1
    for (int w1 = 0; w1 < Cell::kWindows; ++w1) {
      const int32_t o1 = cell.o1 - w1;
      Chosen<Stored, kLanes> at_o[Cell::kWindows];
#pragma unroll
      for (int w2 = 0; w2 < Cell::kWindows; ++w2) {
        const int32_t o2 = cell.o2 - w2;
        at_o[w2] = cells.axis1.has_output(o1) && cells.axis2.has_output(o2)
                       ? chosen.at((o0 * source.size1 + o1) * source.size2 + o2)
                       : none;
      }
#pragma unroll
      for (int w2 = 0; w2 < Cell::kWindows; ++w2)
        cell.for_each_tied(w1, w2, [&](auto& dx_nic, int32_t i) { at_o[w2].add_to(dx_nic, i); });
    }
  }
  cell.store_to(dx);
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

cudaError_t vector_max_pool_grad(const PoolProblem& p, const void* dy, const int32_t* position, void* dx,
                                 cudaStream_t stream) {
  return dispatch(p.dtype, [&](auto tag) {
    using Stored = typename decltype(tag)::type;
    const auto* dy_data = static_cast<const Stored*>(dy);
    auto* dx_data = static_cast<Stored*>(dx);
    const PoolSource<TiedOutputs> source(p.axis, p.channels);
    const OperandImages images{Divisor(p.operand_batch), Divisor(p.position_batch)};
    return dispatch_lanes<Stored>(p.channels, fits_lanes<Stored>(dy, dx, position), [&](auto lanes) {
      constexpr int kLanes = decltype(lanes)::value;
      return dispatch_cells(
          p,
          [&](auto cell) {
            using Cell = decltype(cell);
            const PoolCells<Cell> cells(p);
            const PoolRows rows = cells.rows(p, kLanes);
            return launch_rows(cell_max_pool_grad_kernel<Stored, kLanes, Cell>, rows, stream, rows, cells,
                               source, images, dy_data, position, dx_data);
          },
          [&] {
            const PoolRows rows = input_rows(p, kLanes);
            return launch_rows(vector_max_pool_grad_kernel<Stored, kLanes>, rows, stream, rows, source,
                               images, static_cast<int32_t>(p.axis[1].input),
                               static_cast<int32_t>(p.axis[2].input), dy_data, position, dx_data);
          });
    });
  });
}

}  // namespace convgrad::cuda
