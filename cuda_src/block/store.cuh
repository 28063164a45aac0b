// Stores sums from a warp's registers to rows of the result, 16 bytes at a time where they fit.
//
// After an mma the four lanes of a quad each hold a pair of columns of one row from every 8 columns. A pair
// of 2-byte numbers is too narrow for memory, so the quad exchanges pairs: each lane gives three of its pairs
// away and gets the missing three of one group of 8 columns, which are 16 contiguous bytes.
#pragma once

#include <cstdint>

#include "common_src/epilogue.h"
#include "common_src/number.h"
#include "cuda_src/arch/vector_access.cuh"
#include "cuda_src/block/operand.cuh"

namespace convgrad::cuda {

// Sets words[j] of lane i to words[i] of lane j, within each four neighbouring lanes.
__device__ inline void transpose_in_quad(uint32_t (&words)[4]) {
  const bool odd = threadIdx.x & 1, upper = threadIdx.x & 2;
#pragma unroll
  for (int j = 0; j < 4; j += 2) {
    const uint32_t got = __shfl_xor_sync(0xffffffffu, odd ? words[j] : words[j + 1], 1);
    words[j] = odd ? got : words[j];
    words[j + 1] = odd ? words[j + 1] : got;
  }
#pragma unroll
  for (int j = 0; j < 2; ++j) {
    const uint32_t got = __shfl_xor_sync(0xffffffffu, upper ? words[j] : words[j + 2], 2);
    words[j] = upper ? got : words[j];
    words[j + 2] = upper ? words[j + 2] : got;
  }
}

// kWide: rows begin at multiples of 16 bytes and columns fill whole chunks of 16 bytes.
template <typename Stored, bool kWide, typename RowAt>
struct GemmStore {
  Stored* result;
  RowAt row_at;  // maps a row of the tile to the place of its column 0 in the result, or kNone
  int64_t first_column, columns;
  // For an activation: its epilogue, and the channel of the group's column 0.
  Epilogue epilogue = {};
  int64_t first_channel = 0;

  // Return what the epilogue adds to one column, and to all columns of store(). A thread's rows share their
  // columns, so it reads the bias once for all of them.
  __device__ Sum<Stored> bias_of(int column) const {
    const int64_t k = first_column + column;
    return k < columns ? epilogue.template bias_of<Stored>(first_channel + k) : Sum<Stored>{0};
  }
  template <int kN>
  __device__ void read_bias(int column, Sum<Stored> (&bias)[kN][2]) const {
#pragma unroll
    for (int n = 0; n < kN; ++n)
#pragma unroll
      for (int i = 0; i < 2; ++i) bias[n][i] = bias_of(column + 8 * n + 2 * in_quad() + i);
  }

  // Stores columns column + 8n + 2j and the next, where j is the lane's place in its quad.
  template <int kN, typename Value>
  __device__ void store(int row, int column, const Value (&sums)[kN][2], const Value (&bias)[kN][2]) const {
    const int64_t at = row_at(row);
    Value values[kN][2];
#pragma unroll
    for (int n = 0; n < kN; ++n)
#pragma unroll
      for (int i = 0; i < 2; ++i) values[n][i] = epilogue.finish(sums[n][i], bias[n][i]);
    if constexpr (sizeof(Stored) < sizeof(Value)) {
      if (epilogue.unrounded) return store_unrounded(at, column, values);
    }
    if constexpr (kWide && sizeof(Stored) == 2 && kN % 4 == 0) {
#pragma unroll
      for (int n = 0; n < kN; n += 4) {
        uint32_t words[4];
#pragma unroll
        for (int j = 0; j < 4; ++j) words[j] = pair(values[n + j][0], values[n + j][1]);
        transpose_in_quad(words);
        const int64_t k = first_column + column + 8 * (n + in_quad());
        if (at != kNone && k < columns)
          store_global(reinterpret_cast<uint4*>(result + at + k),
                       make_uint4(words[0], words[1], words[2], words[3]));
      }
    } else {
#pragma unroll
      for (int n = 0; n < kN; ++n) {
        const int64_t k = first_column + column + 8 * n + 2 * in_quad();
        if (at == kNone) continue;
        if constexpr (kWide) {
          if (k < columns) store_pair(result + at + k, values[n][0], values[n][1]);
        } else {
          if (k < columns) result[at + k] = narrow<Stored>(values[n][0]);
          if (k + 1 < columns) result[at + k + 1] = narrow<Stored>(values[n][1]);
        }
      }
    }
  }

  // Stores a result without an epilogue.
  template <int kN, typename Value>
  __device__ void store(int row, int column, const Value (&sums)[kN][2]) const {
    constexpr Value kNoBias[kN][2] = {};
    store(row, column, sums, kNoBias);
  }

  template <typename Value>
  __device__ void store_one(int row, int column, Value sum, Value bias) const {
    const int64_t at = row_at(row), k = first_column + column;
    if (at != kNone && k < columns) store_sum(result, at + k, epilogue.finish(sum, bias), epilogue.unrounded);
  }

 private:
  __device__ static int in_quad() { return static_cast<int>(threadIdx.x) % 4; }
  // Stores pairs of f32 unrounded, 8 bytes each, for a result of f32 from 16-bit operands.
  template <int kN, typename Value>
  __device__ void store_unrounded(int64_t at, int column, const Value (&values)[kN][2]) const {
    Value* to = reinterpret_cast<Value*>(result) + at;
    if (at == kNone) return;
#pragma unroll
    for (int n = 0; n < kN; ++n) {
      const int64_t k = first_column + column + 8 * n + 2 * in_quad();
      if constexpr (kWide) {
        if (k < columns) store_pair(to + k, values[n][0], values[n][1]);
      } else {
        if (k < columns) to[k] = values[n][0];
        if (k + 1 < columns) to[k + 1] = values[n][1];
      }
    }
  }
  template <typename Value>
  __device__ static uint32_t pair(Value first, Value second) {
    return narrow<Stored>(first).bits | static_cast<uint32_t>(narrow<Stored>(second).bits) << 16;
  }
  __device__ static void store_pair(float* to, float first, float second) {
    store_global(reinterpret_cast<float2*>(to), make_float2(first, second));
  }
  __device__ static void store_pair(double* to, double first, double second) {
    store_global(reinterpret_cast<double2*>(to), make_double2(first, second));
  }
  template <typename Half, typename Value>
  __device__ static void store_pair(Half* to, Value first, Value second) {
    store_global(reinterpret_cast<uint32_t*>(to), pair(first, second));
  }
};

}  // namespace convgrad::cuda
