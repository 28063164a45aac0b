// Sums a warpgroup's 64 rows by kColumns columns of a product in registers with wgmma.
//
// Operands are tiles of swizzled 128-byte lines, as TMA delivers them: K-major with one line per row, or
// MN-major with one line per depth.
#pragma once

#include <cstdint>

#include "common_src/major.h"
#include "cuda_src/arch/ptx_sm90.cuh"
#include "cuda_src/block/store.cuh"
#include "cuda_src/wgmma/plan.h"

namespace convgrad::cuda {

// What both arithmetics share: the sums, waiting for them, and storing them.
template <int kColumns>
class WgmmaRegisters {
 public:
  template <int kPending>
  __device__ __forceinline__ void wait() {
    wgmma_wait<kPending>(sum_);
  }

  __device__ __forceinline__ void clear() {
#pragma unroll
    for (float& value : sum_) value = 0;
  }

  // Stores rows 0 to 63: see block/store.cuh.
  template <typename Rows>
  __device__ __forceinline__ void store(const Rows& rows) const {
    constexpr int kEach = 4;  // groups of 8 columns at a time: the number that a quad exchanges
#pragma unroll
    for (int n = 0; n < kColumns / 8; n += kEach) {
      float bias[kEach][2];
      rows.read_bias(8 * n, bias);
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        float values[kEach][2];
#pragma unroll
        for (int j = 0; j < kEach; ++j) {
          values[j][0] = sum_[4 * (n + j) + 2 * half];
          values[j][1] = sum_[4 * (n + j) + 2 * half + 1];
        }
        rows.store(first_row() + 8 * half, 8 * n, values, bias);
      }
    }
  }

  // Returns the first of the two rows, 8 apart, of which this thread holds a part.
  __device__ static int first_row() {
    return static_cast<int>(threadIdx.x) / 32 % 4 * 16 + static_cast<int>(threadIdx.x) % 32 / 4;
  }

 protected:
  float sum_[kColumns / 2];
};

inline constexpr int kSwizzleAtom = 8 * kWgmmaLineBytes;  // eight lines

// Returns the descriptor of a tile from a depth on.
template <Major kMajor, typename Stored>
__device__ __forceinline__ uint64_t wgmma_tile(const Stored* tile, int depth) {
  constexpr int kLine = kWgmmaDepth<Stored>;  // numbers per line
  if constexpr (kMajor == Major::kK)
    return wgmma_operand(tile + depth, 16, kSwizzleAtom);  // there is no second line along the depth
  else
    return wgmma_operand(tile + depth * kLine, kWgmmaDepth<Stored> * kWgmmaLineBytes, kSwizzleAtom);
}

// 16-bit numbers, both operands from shared memory.
template <typename Stored, int kColumns, Major kA, Major kB>
class WgmmaSum : public WgmmaRegisters<kColumns> {
 public:
  // Adds one slice of the depth. Its products are in flight until wait().
  __device__ __forceinline__ void multiply_add(const Stored* a, const Stored* b) {
    constexpr int kStep = 16;  // the depth of a wgmma
    wgmma_fence();
#pragma unroll
    for (int depth = 0; depth < kWgmmaDepth<Stored>; depth += kStep)
      wgmma<Stored, kColumns, kA, kB>(this->sum_, wgmma_tile<kA>(a, depth), wgmma_tile<kB>(b, depth));
    wgmma_commit();
  }
};

// f32 as TF32. The tensor cores would truncate f32, which pulls every product towards zero. So a goes through
// registers, where it is rounded to nearest, and b is already rounded. wgmma requires both to be K-major.
template <int kColumns>
class WgmmaSum<float, kColumns, Major::kK, Major::kK> : public WgmmaRegisters<kColumns> {
 public:
  __device__ __forceinline__ void multiply_add(const float* a, const float* b) {
    constexpr int kStep = 8, kSteps = kWgmmaDepth<float> / kStep;
    // The products of the previous slice still read these registers. While this warpgroup waits, the other
    // one's products run.
    this->template wait<0>();
    uint32_t words[kSteps][4];
#pragma unroll
    for (int step = 0; step < kSteps; ++step)
#pragma unroll
      for (int j = 0; j < 4; ++j)
        words[step][j] = to_tf32(load_shared(a + element(this->first_row() + 8 * (j % 2), 2 * step + j / 2)));
    wgmma_fence();
#pragma unroll
    for (int step = 0; step < kSteps; ++step)
      wgmma_tf32<kColumns>(this->sum_, words[step], wgmma_tile<Major::kK>(b, kStep * step));
    wgmma_commit();
  }

 private:
  // Returns the place of the thread's number in a chunk of four depths of a row.
  __device__ static int element(int row, int chunk) {
    return row * kWgmmaDepth<float> + (chunk ^ (row % 8)) * 4 + static_cast<int>(threadIdx.x) % 4;
  }
};

}  // namespace convgrad::cuda
