// Multiplies a tile's windows by the filter, both in shared memory, in each arithmetic (full f32:
// activation_fma.cuh). Each class has
//
//     prepare(p, tables, filter, value_at)   copies the filter to shared memory in the multiply-adds' order
//     multiply_add(patch, tables, filter)    sums one tile, from zero
//     store(rows)                            see block/store.cuh
//
// A block has 4 warps, which divide the tile's positions among them; each warp computes all of the columns.
#pragma once

#include "common_src/integers.h"
#include "cuda_src/block/store.cuh"
#include "cuda_src/few_channels/pairs.cuh"

namespace convgrad::cuda {

inline constexpr int kFewChannelsThreads = 128;

template <Math kMath, int kColumns, bool kPaired>
class FewChannelsSum;

// A block's tables in shared memory.
struct FewChannelsTables {
  PairPlace* place;  // of every two slots; in full f32 the offset of one slot each
  int* depth;        // of every slot
};

// With mma.sync in bf16, f16 and TF32: 16 windows by 8 columns per instruction. A lane's slots are
// neighbours: one word of two 16-bit numbers, or two words of TF32, for which the depth may be in any order
// as long as both operands agree.
template <Math kMath, int kColumns, bool kPaired>
class FewChannelsMma {
 public:
  using Stored = typename MathTypes<kMath>::Stored;
  static constexpr bool kHalf = sizeof(Stored) == 2;
  static constexpr int kStepOctets = kHalf ? 2 : 1;  // of slots per mma

  __device__ static int slots(const FewChannelsProblem& p) {
    return tiles_over(p.octets, kStepOctets) * kStepOctets * 8;
  }

  template <typename ValueAt>
  __device__ static void prepare(const FewChannelsProblem& p, FewChannelsTables tables, Stored* filter,
                                 ValueAt value_at) {
    const int thread = static_cast<int>(threadIdx.x), count = slots(p);
    for (int slot = thread; slot < count; slot += kFewChannelsThreads) {
      tables.depth[slot] = slot_at<kPaired>(p, slot).depth;
      if (slot % 2 == 0) tables.place[slot / 2] = pair_place<kMath, kPaired>(p, slot);
    }
    __syncthreads();
    // Writes, for each step of the depth, each pair of 8-column groups and each lane, the words of its
    // fragments.
    const int words = count / 8 / kStepOctets * (kN / 2) * 32 * 4;
    for (int at = thread; at < words; at += kFewChannelsThreads) {
      const int of_lane = at % 4, a_lane = at / 4 % 32, n = at / 128 % (kN / 2) * 2 + of_lane / 2;
      const int step = at / 128 / (kN / 2), column = n * 8 + a_lane / 4, half = of_lane % 2;
      uint32_t word;
      if constexpr (kHalf) {
        const int slot = step * 16 + half * 8 + a_lane % 4 * 2;
        word = pack_halves(value_at(tables.depth[slot], column).bits,
                           value_at(tables.depth[slot + 1], column).bits);
      } else {
        word = to_tf32(value_at(tables.depth[step * 8 + a_lane % 4 * 2 + half], column));
      }
      reinterpret_cast<uint32_t*>(filter)[at] = word;
    }
  }

  __device__ void find_windows(const FewChannelsProblem& p) {
#pragma unroll
    for (int m = 0; m < kM; ++m)
#pragma unroll
      for (int half = 0; half < 2; ++half) window_[m][half] = window_at(p, row(m, half));
  }

  __device__ void multiply_add(const FewChannelsProblem& p, const Stored* patch, FewChannelsTables tables,
                               const Stored* filter) {
#pragma unroll
    for (int m = 0; m < kM; ++m)
#pragma unroll
      for (int n = 0; n < kN; ++n)
#pragma unroll
        for (int v = 0; v < 4; ++v) sum_[m][n][v] = 0;
    const PairPlace* place = tables.place + lane() % 4;
    const uint4* words = reinterpret_cast<const uint4*>(filter) + lane();
    const int steps = slots(p) / 8 / kStepOctets;
    for (int step = 0; step < steps; ++step, place += 4 * kStepOctets, words += kN / 2 * 32) {
      uint32_t a[kM][4];
      read_windows(a, patch, place);
#pragma unroll
      for (int n = 0; n < kN; n += 2) {
        const uint4 b = load_shared(words + n / 2 * 32);
        const uint32_t first[2] = {b.x, b.y}, second[2] = {b.z, b.w};
#pragma unroll
        for (int m = 0; m < kM; ++m) {
          multiply(sum_[m][n], a[m], first);
          multiply(sum_[m][n + 1], a[m], second);
        }
      }
    }
  }

  template <typename Rows>
  __device__ void store(const Rows& rows) const {
    float bias[kN][2];
    rows.read_bias(0, bias);
#pragma unroll
    for (int m = 0; m < kM; ++m)
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        float values[kN][2];
#pragma unroll
        for (int n = 0; n < kN; ++n) {
          values[n][0] = sum_[m][n][2 * half];
          values[n][1] = sum_[m][n][2 * half + 1];
        }
        rows.store(row(m, half), 0, values, bias);
      }
  }

 private:
  static constexpr int kM = 4, kN = kColumns / 8;

  __device__ static int lane() { return static_cast<int>(threadIdx.x) % 32; }
  __device__ static int row(int m, int half) {
    return static_cast<int>(threadIdx.x) / 32 * (16 * kM) + 16 * m + 8 * half + lane() / 4;
  }

  __device__ static PairPlace place_at(const PairPlace* place) {
    const int2 both = load_shared(reinterpret_cast<const int2*>(place));
    return {both.x, both.y};
  }

  __device__ void read_windows(uint32_t (&a)[kM][4], const Stored* patch, const PairPlace* place) const {
    const PairPlace first = place_at(place);
    if constexpr (kHalf) {
      const PairPlace second = place_at(place + 4);
#pragma unroll
      for (int m = 0; m < kM; ++m)
#pragma unroll
        for (int half = 0; half < 2; ++half) {
          a[m][half] = half_pair<kPaired>(patch + window_[m][half], first);
          a[m][2 + half] = half_pair<kPaired>(patch + window_[m][half], second);
        }
    } else {
#pragma unroll
      for (int m = 0; m < kM; ++m)
#pragma unroll
        for (int half = 0; half < 2; ++half) {
          const auto pair = wide_pair<kMath, kPaired>(patch + window_[m][half], first);
          a[m][half] = pair.first, a[m][2 + half] = pair.second;
        }
    }
  }

  __device__ static void multiply(float (&sum)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
    if constexpr (kMath == Math::kBF16) mma_bf16_16x8x16(sum, a, b);
    if constexpr (kMath == Math::kF16) mma_f16_16x8x16(sum, a, b);
    if constexpr (kMath == Math::kTF32) mma_tf32_16x8x8(sum, a, b);
  }

  int window_[kM][2];
  float sum_[kM][kN][4];
};

template <int kColumns, bool kPaired>
class FewChannelsSum<Math::kBF16, kColumns, kPaired> : public FewChannelsMma<Math::kBF16, kColumns, kPaired> {
};
template <int kColumns, bool kPaired>
class FewChannelsSum<Math::kF16, kColumns, kPaired> : public FewChannelsMma<Math::kF16, kColumns, kPaired> {};
template <int kColumns, bool kPaired>
class FewChannelsSum<Math::kTF32, kColumns, kPaired> : public FewChannelsMma<Math::kTF32, kColumns, kPaired> {
};

// With mma.sync in f64: 8 windows by 8 columns, two instructions per octet of slots.
template <int kColumns, bool kPaired>
class FewChannelsSum<Math::kF64, kColumns, kPaired> {
 public:
  __device__ static int slots(const FewChannelsProblem& p) { return p.octets * 8; }

  template <typename ValueAt>
  __device__ static void prepare(const FewChannelsProblem& p, FewChannelsTables tables, double* filter,
                                 ValueAt value_at) {
    const int thread = static_cast<int>(threadIdx.x), count = slots(p);
    for (int slot = thread; slot < count; slot += kFewChannelsThreads) {
      tables.depth[slot] = slot_at<kPaired>(p, slot).depth;
      if (slot % 2 == 0) tables.place[slot / 2] = pair_place<Math::kF64, kPaired>(p, slot);
    }
    __syncthreads();
    // Writes, for each octet, each 8 columns and each lane, its two slots.
    for (int at = thread; at < count * kColumns; at += kFewChannelsThreads) {
      const int a_lane = at / 2 % 32, n = at / 64 % kN, octet = at / 64 / kN;
      filter[at] = value_at(tables.depth[octet * 8 + a_lane % 4 * 2 + at % 2], n * 8 + a_lane / 4);
    }
  }

  __device__ void find_windows(const FewChannelsProblem& p) {
#pragma unroll
    for (int m = 0; m < kM; ++m) window_[m] = window_at(p, row(m));
  }

  __device__ void multiply_add(const FewChannelsProblem& p, const double* patch, FewChannelsTables tables,
                               const double* filter) {
#pragma unroll
    for (int m = 0; m < kM; ++m)
#pragma unroll
      for (int n = 0; n < kN; ++n) sum_[m][n][0] = sum_[m][n][1] = 0;
    const PairPlace* places = tables.place + lane() % 4;
    const double2* words = reinterpret_cast<const double2*>(filter) + lane();
    for (int octet = 0; octet < p.octets; ++octet, places += 4, words += kN * 32) {
      const int2 both = load_shared(reinterpret_cast<const int2*>(places));
      const PairPlace place = {both.x, both.y};
      Pair<double> a[kM];
#pragma unroll
      for (int m = 0; m < kM; ++m) a[m] = wide_pair<Math::kF64, kPaired>(patch + window_[m], place);
#pragma unroll
      for (int n = 0; n < kN; ++n) {
        const double2 b = load_shared(words + n * 32);
#pragma unroll
        for (int m = 0; m < kM; ++m) {
          mma_f64_8x8x4(sum_[m][n], a[m].first, b.x);
          mma_f64_8x8x4(sum_[m][n], a[m].second, b.y);
        }
      }
    }
  }

  template <typename Rows>
  __device__ void store(const Rows& rows) const {
    double bias[kN][2];
    rows.read_bias(0, bias);
#pragma unroll
    for (int m = 0; m < kM; ++m) rows.store(row(m), 0, sum_[m], bias);
  }

 private:
  static constexpr int kM = 4, kN = kColumns / 8;

  __device__ static int lane() { return static_cast<int>(threadIdx.x) % 32; }
  __device__ static int row(int m) {
    return static_cast<int>(threadIdx.x) / 32 * (8 * kM) + 8 * m + lane() / 4;
  }

  int window_[kM];
  double sum_[kM][kN][2];
};

}  // namespace convgrad::cuda
