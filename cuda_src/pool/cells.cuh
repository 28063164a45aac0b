// Groups the inputs into cells, for the gradients of windows of kTaps by kTaps at equal strides.
//
// Along an axis a cell is the inputs from the first tap of one output up to the first tap of the next. The
// same few windows hold any of them, and each is read once for the whole cell. With stride 1 a cell takes the
// inputs of two outputs, because otherwise it would be a single input.
#pragma once

#include <cstdint>

#include "common_src/problem.h"
#include "cuda_src/lanes.cuh"
#include "cuda_src/pool/rows.cuh"

namespace convgrad::cuda {

template <int kTaps, int kStride>
struct Cell {
  static constexpr int kOutputs = kStride == 1 ? 2 : 1;
  static constexpr int kInputs = kOutputs * kStride;
  static constexpr int kWindows = kOutputs + (kTaps - 1) / kStride;

  // Reports whether the cell's input a is in its window w. Windows are numbered from the last output back,
  // which is the order of an input's taps.
  __device__ static constexpr bool ties(int a, int w) {
    const int r = a - (kOutputs - 1 - w) * kStride;
    return r >= 0 && r < kTaps;
  }
};

template <typename Cell>
class CellAxis {
 public:
  explicit CellAxis(const Axis& axis)
      : input_(static_cast<int32_t>(axis.input)), output_(static_cast<int32_t>(axis.output)) {
    // The outputs whose first tap lies before the input, minus one: floor(pad_lo / stride).
    int64_t before = axis.pad_lo / axis.stride;
    if (before * axis.stride > axis.pad_lo) --before;
    last_output_ = static_cast<int32_t>(before) + Cell::kOutputs - 1;
    before_input_ = static_cast<int32_t>(axis.pad_lo - before * axis.stride);
  }

  int64_t cells() const { return (input_ + before_input_ + Cell::kInputs - 1) / Cell::kInputs; }
  __device__ __forceinline__ int32_t inputs() const { return input_; }
  __device__ __forceinline__ int32_t outputs() const { return output_; }

  // Return the cell's input 0 and its window 0, which may lie beyond the ends.
  __device__ __forceinline__ int32_t first_input(int32_t cell) const {
    return cell * Cell::kInputs - before_input_;
  }
  __device__ __forceinline__ int32_t last_output(int32_t cell) const {
    return cell * Cell::kOutputs + last_output_;
  }
  __device__ __forceinline__ bool has_input(int32_t i) const {
    return static_cast<uint32_t>(i) < static_cast<uint32_t>(input_);
  }
  __device__ __forceinline__ bool has_output(int32_t o) const {
    return static_cast<uint32_t>(o) < static_cast<uint32_t>(output_);
  }

 private:
  int32_t input_, output_, last_output_, before_input_;
};

// The cells of the two inner axes. Along the outermost axis a cell is one input.
template <typename CellType>
struct PoolCells {
  CellAxis<CellType> axis1, axis2;
  int32_t channels;
  int64_t image;  // numbers of the inputs

  explicit PoolCells(const PoolProblem& p)
      : axis1(p.axis[1]),
        axis2(p.axis[2]),
        channels(static_cast<int32_t>(p.channels)),
        image(p.inputs() * p.channels) {}

  PoolRows rows(const PoolProblem& p, int lanes) const {
    return PoolRows(p.batch, p.axis[0].input, axis1.cells(), axis2.cells(), p.channels / lanes,
                    CellType::kWindows > CellType::kOutputs);
  }
};

// Calls use(Cell<...>{}) for windows that have kernels over cells, and otherwise() for others.
template <typename Use, typename Otherwise>
cudaError_t dispatch_cells(const PoolProblem& p, const Use& use, const Otherwise& otherwise) {
  const auto has = [&](int64_t taps, int64_t stride) {
    for (const Axis* axis : {&p.axis[1], &p.axis[2]}) {
      if (axis->taps != taps || axis->stride != stride || axis->filter_dilation != 1) return false;
    }
    return true;
  };
  if (has(2, 2)) return use(Cell<2, 2>{});
  if (has(3, 2)) return use(Cell<3, 2>{});
  if (has(3, 1)) return use(Cell<3, 1>{});
  return otherwise();
}

// One thread's cell: where its inputs and windows begin, and their sums.
template <typename Stored, int kLanes, typename CellType>
struct CellSums {
  const PoolCells<CellType>& cells;
  const RowPlace& place;
  int32_t i1, i2, o1, o2;  // of input 0 and of window 0
  int32_t flat_i;          // of input 0
  Lanes<Sum<Stored>, kLanes> dx_nic[CellType::kInputs][CellType::kInputs];

  __device__ __forceinline__ CellSums(const PoolCells<CellType>& cells, const RowPlace& place)
      : cells(cells),
        place(place),
        i1(cells.axis1.first_input(place.at1)),
        i2(cells.axis2.first_input(place.at2)),
        o1(cells.axis1.last_output(place.at1)),
        o2(cells.axis2.last_output(place.at2)),
        flat_i((place.at0 * cells.axis1.inputs() + i1) * cells.axis2.inputs() + i2) {
#pragma unroll
    for (auto& row : dx_nic) {
#pragma unroll
      for (auto& sum : row) sum = all_lanes<kLanes>(Sum<Stored>{0});
    }
  }

  // Calls add(dx_nic, i) for every input in window (w1,w2).
  template <typename Add>
  __device__ __forceinline__ void for_each_tied(int w1, int w2, const Add& add) {
#pragma unroll
    for (int a = 0; a < CellType::kInputs; ++a) {
#pragma unroll
      for (int b = 0; b < CellType::kInputs; ++b) {
        if (CellType::ties(a, w1) && CellType::ties(b, w2))
          add(dx_nic[a][b], flat_i + a * cells.axis2.inputs() + b);
      }
    }
  }

  __device__ __forceinline__ void store_to(Stored* dx) const {
    Stored* dx_nc = dx + place.n * cells.image + place.vector * kLanes;
#pragma unroll
    for (int a = 0; a < CellType::kInputs; ++a) {
#pragma unroll
      for (int b = 0; b < CellType::kInputs; ++b) {
        if (cells.axis1.has_input(i1 + a) && cells.axis2.has_input(i2 + b)) {
          const int32_t i = flat_i + a * cells.axis2.inputs() + b;
          store(dx_nc + i * cells.channels, narrow_lanes<Stored>(dx_nic[a][b]));
        }
      }
    }
  }
};

}  // namespace convgrad::cuda
