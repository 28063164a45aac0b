// Max pooling's gradient:
//
//     dx[n,i,c] = sum over r of dy[n,o,c] where position[n,o,c] = i
//
// It gathers: inputs ask the windows that hold them whether they were chosen there, so no two threads write
// one number. A thread has a vector of channels, of a cell of inputs for the usual windows (cells.cuh),
// else of one input.
#include "common_src/dispatch.h"
#include "cuda_src/lanes.cuh"
#include "cuda_src/pool/cells.cuh"
#include "cuda_src/pool/kernels.h"
#include "cuda_src/pool/rows.cuh"
#include "cuda_src/pool/runs.cuh"

namespace convgrad::cuda {
namespace {

// One output's vectors of both operands.
template <typename Stored, int kLanes>
struct Chosen {
  Lanes<int32_t, kLanes> position;
  Lanes<Stored, kLanes> dy;

  // An input that was not chosen adds 0, which leaves every bit of a sum that began with 0.
  __device__ __forceinline__ void add_to(Lanes<Sum<Stored>, kLanes>& dx_nic, int32_t i) const {
#pragma unroll
    for (int l = 0; l < kLanes; ++l)
      dx_nic.lane[l] += position.lane[l] == i ? widen(dy.lane[l]) : Sum<Stored>{0};
  }
};

// Which of their images the operands have for the result's image n.
struct OperandImages {
  Divisor dy, position;
};

// Where the two operands' vectors of one image and its channels begin.
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
    // The loads of one row of windows are under way together; more would not fit the registers.
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
