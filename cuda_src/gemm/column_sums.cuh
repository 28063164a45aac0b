// Sums an operand's tile over the depth, one sum per row: for dy's tile in wgrad, whose rows are channels,
// these are the bias gradient. The tile is in shared memory for the multiply-adds anyway, so this reads
// nothing from global memory.
//
// Between slices the sums stay in shared memory, because the main loop has no registers left for them.
#pragma once

#include <cstring>

#include "common_src/number.h"
#include "cuda_src/arch/vector_access.cuh"
#include "cuda_src/block/math.cuh"
#include "cuda_src/block/operand.cuh"

namespace convgrad::cuda {

// Tile is MN-major. Each thread adds one chunk of some lines; at the end the sums of threads with the same
// chunk are added in order.
template <typename Stored, typename Tile>
class ColumnSums {
 public:
  using Value = Sum<Stored>;

  // Clears the thread's own sums, which no other thread touches before finish().
  __device__ void clear() {
#pragma unroll
    for (int w = 0; w < kWords; ++w) store_shared(&mine(w), Word{});
  }

  // Adds a slice's tile.
  __device__ void add(const Stored* tile) {
    Word sums[kWords];
#pragma unroll
    for (int w = 0; w < kWords; ++w) sums[w] = load_shared(&mine(w));
#pragma unroll
    for (int line = 0; line < Tile::kDepth; line += kThreads) {
      const uint4 bits =
          load_shared(reinterpret_cast<const uint4*>(tile + Tile::chunk(line + first_line(), chunk())));
      Stored numbers[kChunk<Stored>];
      memcpy(numbers, &bits, sizeof bits);
#pragma unroll
      for (int i = 0; i < kChunk<Stored>; ++i) sums[i / kLanes].lane[i % kLanes] += widen(numbers[i]);
    }
#pragma unroll
    for (int w = 0; w < kWords; ++w) store_shared(&mine(w), sums[w]);
  }

  // Calls visit(column, sum); all threads of the block call it together.
  template <typename Visit>
  __device__ void finish(Visit visit) {
    __syncthreads();
    const int column = static_cast<int>(threadIdx.x);
    if (column >= kColumns) return;
    const int i = column % kChunk<Stored>;
    Value sum = 0;
    for (int thread = column / kChunk<Stored>; thread < kGemmThreads; thread += Tile::kLineChunks)
      sum += words_[i / kLanes][thread].lane[i % kLanes];
    visit(column, sum);
  }

 private:
  static constexpr int kColumns = Tile::kLineChunks * kChunk<Stored>;
  static constexpr int kThreads = kGemmThreads / Tile::kLineChunks;  // threads with the same chunk
  static_assert(!Tile::kIsKMajor && Tile::kDepth % kThreads == 0);
  static constexpr int kLanes = 16 / sizeof(Value), kWords = kChunk<Stored> / kLanes;
  struct alignas(16) Word {
    Value lane[kLanes];
  };

  __device__ static int chunk() { return static_cast<int>(threadIdx.x) % Tile::kLineChunks; }
  __device__ static int first_line() { return static_cast<int>(threadIdx.x) / Tile::kLineChunks; }
  __device__ Word& mine(int w) { return words_[w][threadIdx.x]; }

  Word words_[kWords][kGemmThreads];
};

}  // namespace convgrad::cuda
