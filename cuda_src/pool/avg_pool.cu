// Computes average pooling and its gradient with vectors of channels:
//
//     y[n,o,c]  = (sum over r of x[n,i,c]) / count(o)
//     dx[n,i,c] = sum over r of dy[n,o,c] / count(o)
//
// Forward, a thread computes a vector of channels of one output. The gradient gathers, as that of max pooling
// does: for the usual windows a thread computes a vector of channels of a cell of inputs (cells.cuh) and
// divides each of the cell's outputs once; for others it computes one input. Terms are added in the order of
// the reference kernels, so the bits are the same.
#include "common_src/dispatch.h"
#include "cuda_src/arch/launch.cuh"
#include "cuda_src/lanes.cuh"
#include "cuda_src/long_lanes.cuh"
#include "cuda_src/pool/cells.cuh"
#include "cuda_src/pool/rows.cuh"
#include "cuda_src/pool/runs.cuh"
#include "cuda_src/pool_kernels.h"

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

// The divisor of an output's sum: the same for all outputs, or if of_all is 0 the number of taps on the
// input.
struct Counts {
  int32_t of_all;
  TiedInputs tied[3];
  Divisor size1, size2;  // outputs

  explicit Counts(const PoolProblem& p)
      : of_all(uniform_count(p)),
        tied{TiedInputs(p.axis[0]), TiedInputs(p.axis[1]), TiedInputs(p.axis[2])},
        size1(std::max<int64_t>(p.axis[1].output, 1)),
        size2(std::max<int64_t>(p.axis[2].output, 1)) {}

  __device__ __forceinline__ int32_t at(int32_t o0, int32_t o1, int32_t o2) const {
    return of_all > 0 ? of_all : tied[0](o0).count * tied[1](o1).count * tied[2](o2).count;
  }
  __device__ __forceinline__ int32_t at(int32_t o) const {
    if (of_all > 0) return of_all;
    int32_t o0 = size2.split(o);  // leaves o2 in o
    int32_t o1 = o0;
    o0 = size1.split(o1);
    return at(o0, o1, o);
  }
};

template <typename Value, typename Stored, int kLanes>
__device__ __forceinline__ Lanes<Value, kLanes> divided(const Lanes<Stored, kLanes>& dy_noc, int32_t count) {
  Lanes<Value, kLanes> lanes = widen_lanes(dy_noc);
#pragma unroll
  for (Value& lane : lanes.lane) lane /= static_cast<Value>(count);
  return lanes;
}

template <typename Stored, int kLanes>
__global__ void __launch_bounds__(kPoolThreads, 2)
    vector_avg_pool_grad_kernel(PoolRows rows, PoolSource<TiedOutputs> source, Counts counts,
                                const Stored* dy, Stored* dx) {
  using Value = Sum<Stored>;
  RowPlace i;
  if (!rows.find(i)) return;
  const Window window(source, i.at0, i.at1, i.at2);
  const Stored* dy_nc = dy + i.n * source.image + i.vector * kLanes;
  LongLanes<Value, kLanes, false> dx_nic;
  for_each_tied<0>(
      source, window, [&](int32_t o) { return load<kLanes>(dy_nc + o * source.channels); },
      [&](const Lanes<Stored, kLanes>& dy_noc, int32_t o) {
        dx_nic.add(divided<Value>(dy_noc, counts.at(o)));
      });
  store(dx + rows.number(i) * kLanes, narrow_lanes<Stored>(dx_nic.value()));
}

template <typename Stored, int kLanes, typename Cell>
__global__ void __launch_bounds__(kPoolThreads, room_for(2, 1))
    cell_avg_pool_grad_kernel(PoolRows rows, PoolCells<Cell> cells, PoolSource<TiedOutputs> source,
                              Counts counts, const Stored* dy, Stored* dx) {
  using Value = Sum<Stored>;
  RowPlace place;
  if (!rows.find(place)) return;
  CellSums<Stored, kLanes, Cell> cell(cells, place);
  const Stored* dy_nc = dy + place.n * source.image + place.vector * kLanes;

  const Run run0 = source.tied[0](place.at0);
  for (int32_t k0 = 0; k0 < run0.count; ++k0) {
    const int32_t o0 = run0.first + k0 * source.tied[0].step();
#pragma unroll
    for (int w1 = 0; w1 < Cell::kWindows; ++w1) {
      const int32_t o1 = cell.o1 - w1;
      Lanes<Stored, kLanes> dy_noc[Cell::kWindows];
#pragma unroll
      for (int w2 = 0; w2 < Cell::kWindows; ++w2) {
        const int32_t o2 = cell.o2 - w2;
        dy_noc[w2] =
            cells.axis1.has_output(o1) && cells.axis2.has_output(o2)
                ? load<kLanes>(dy_nc + ((o0 * source.size1 + o1) * source.size2 + o2) * source.channels)
                : all_lanes<kLanes>(narrow<Stored>(0));
      }
#pragma unroll
      for (int w2 = 0; w2 < Cell::kWindows; ++w2) {
        // A window off the input has count 0 and ties no input: its NaN lands where nothing is stored.
        const Lanes<Value, kLanes> term = divided<Value>(dy_noc[w2], counts.at(o0, o1, cell.o2 - w2));
        cell.for_each_tied(w1, w2, [&](Lanes<Value, kLanes>& dx_nic, int32_t) {
#pragma unroll
          for (int l = 0; l < kLanes; ++l) dx_nic.lane[l] += term.lane[l];
        });
      }
    }
  }
  cell.store_to(dx);
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

cudaError_t vector_avg_pool_grad(const PoolProblem& p, const void* dy, void* dx, cudaStream_t stream) {
  return dispatch(p.dtype, [&](auto tag) {
    using Stored = typename decltype(tag)::type;
    const auto* dy_data = static_cast<const Stored*>(dy);
    auto* dx_data = static_cast<Stored*>(dx);
    const PoolSource<TiedOutputs> source(p.axis, p.channels);
    const Counts counts(p);
    return dispatch_lanes<Stored>(p.channels, fits_lanes<Stored>(dy, dx), [&](auto lanes) {
      constexpr int kLanes = decltype(lanes)::value;
      const auto by_input = [&] {
        const PoolRows rows = input_rows(p, kLanes);
        return launch_rows(vector_avg_pool_grad_kernel<Stored, kLanes>, rows, stream, rows, source, counts,
                           dy_data, dx_data);
      };
      // A cell has one plain sum per input, which equals LongSum while there is one run.
      if (p.taps() > kSumRun) return by_input();
      return dispatch_cells(
          p,
          [&](auto cell) {
            using Cell = decltype(cell);
            const PoolCells<Cell> cells(p);
            const PoolRows rows = cells.rows(p, kLanes);
            return launch_rows(cell_avg_pool_grad_kernel<Stored, kLanes, Cell>, rows, stream, rows, cells,
                               source, counts, dy_data, dx_data);
          },
          by_input);
    });
  });
}

}  // namespace convgrad::cuda
