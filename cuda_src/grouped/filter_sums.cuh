// What the grouped kernels whose result is a filter share: assigning pieces to threads, walking over
// positions, and adding the threads' sums.
#pragma once

#include "cuda_src/arch/shared_memory.cuh"
#include "cuda_src/block/filter.cuh"
#include "cuda_src/grouped/grouped.cuh"

namespace convgrad::cuda {

// A thread's channels, piece and part.
struct Mine {
  int k;
  int piece;
  unsigned part;
};

__device__ inline Mine find_mine(const GroupedProblem& p, const GroupedFilterSplit& split, int lanes,
                                 unsigned x, unsigned y) {
  unsigned block = blockIdx.x;
  const unsigned panel = block % p.panels;
  block /= p.panels;
  return {static_cast<int>(panel * blockDim.x + x) * lanes,
          static_cast<int>(block % split.piece_blocks * blockDim.y + y), block / split.piece_blocks};
}

// Calls visit(row, first o2) for each of the thread's runs, in order.
template <typename Visit>
__device__ void for_each_run(const GroupedProblem& p, const GroupedFilterSplit& split, unsigned part,
                             Visit visit) {
  const unsigned begin = part * split.units_per_part;
  const unsigned end =
      begin + split.units_per_part < split.units ? begin + split.units_per_part : split.units;
  for (unsigned unit = begin + threadIdx.z; unit < end; unit += blockDim.z)
    visit(unit / p.runs, static_cast<int>(unit % p.runs) * kGroupedRun);
}

// Adds `mine` over the block's slots, slot by slot, and calls store(x, y, v, sum) for every x and y.
template <int kValues, typename Value, typename Store>
__device__ void add_slots(const Value (&mine)[kValues], Store store) {
  Value* slots = shared_memory<Value>();  // [slot][v][y][x]
  const unsigned owners = blockDim.x * blockDim.y, owner = threadIdx.y * blockDim.x + threadIdx.x;
#pragma unroll
  for (int v = 0; v < kValues; ++v) slots[(threadIdx.z * kValues + v) * owners + owner] = mine[v];
  __syncthreads();
  for (unsigned at = threadIdx.z * owners + owner; at < kValues * owners; at += blockDim.z * owners) {
    Value sum = 0;
    for (unsigned slot = 0; slot < blockDim.z; ++slot) sum += slots[slot * kValues * owners + at];
    store(at % blockDim.x, at % owners / blockDim.x, static_cast<int>(at / owners), sum);
  }
  __syncthreads();
}

// The destination of the sums: dw if there is one part, otherwise partials[part,r,c,k].
template <typename Stored>
struct Result {
  Stored* dw;
  Sum<Stored>* partials;

  __device__ void store(unsigned part, int64_t elements, int64_t at, Sum<Stored> sum) const {
    if (partials != nullptr)
      partials[part * elements + at] = sum;
    else
      dw[at] = narrow<Stored>(sum);
  }
};

// A piece's phase (common_src/phase.h), and its first row there.
struct PhasePiece : FilterPhase {
  int64_t first_row;

  __device__ PhasePiece(const ConvProblem& p, const Phases& phases, int piece, int rows_of_piece)
      : FilterPhase() {
    const int64_t pieces = tiles_over(phases.most_taps() * p.group_in(), rows_of_piece);
    first_row = piece % pieces * rows_of_piece;
    rows = 0;
    if (piece / pieces < phases.count())
      static_cast<FilterPhase&>(*this) = FilterPhase(p, phases, piece / pieces);
  }
};

}  // namespace convgrad::cuda
