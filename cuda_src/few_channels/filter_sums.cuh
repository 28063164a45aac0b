// One warp's sums of a filter's gradient, 32 slots of the depth by all of the block's columns, in each
// arithmetic (full f32: filter_fma.cuh). Each class has
//
//     find_slots(p, first)                     sets the warp's first slot
//     multiply_add(p, patch, dy, octets...)    adds some of a tile's positions, eight at a time
//     end_tile(), end()                        are called after each tile, and after the last
//     for_each_value(visit)                    calls visit(v, sum); a v is the same sum in lanes of all warps
//     store(rows)                              see block/store.cuh; a row is one of the warp's slots
#pragma once

#include "common_src/major.h"
#include "cuda_src/block/store.cuh"
#include "cuda_src/few_channels/pairs.cuh"

namespace convgrad::cuda {

template <Math kMath, int kColumns, bool kPaired>
class FewChannelsFilterSum;

// The offsets of two slots in a window. The slots of a pair are neighbours.
template <bool kPaired>
struct SlotOffsets {
  int first, second;

  __device__ void find(const FewChannelsProblem& p, int slot) {
    first = slot_at<kPaired>(p, slot).offset;
    second = kPaired ? first + 1 : slot_at<kPaired>(p, slot + 1).offset;
  }
};

// With mma.sync in bf16, f16 and TF32: a lane's two slots are rows g and g+8 of the instruction.
template <Math kMath, int kColumns, bool kPaired>
class FewChannelsFilterMma {
 public:
  using Stored = typename MathTypes<kMath>::Stored;
  using TileB = OperandTile<Stored, kColumns, Major::kMN>;
  static constexpr bool kHalf = sizeof(Stored) == 2;

  __device__ void find_slots(const FewChannelsProblem& p, int first) {
#pragma unroll
    for (int m = 0; m < kM; ++m) slots_[m].find(p, first + row(m, 0));
  }

  // windows[j] is the start of the window of position 8j. The warp takes every `parts`-th step from `part`
  // on.
  __device__ void multiply_add(const FewChannelsProblem& p, const Stored* patch, const Stored* dy,
                               const int* windows, int part, int parts, int positions) {
    constexpr int kOctets = kHalf ? 2 : 1;
    const int steps = positions / 8 / kOctets;
    const Stored* of_lane = patch + in_group() * p.step;
    for (int step = part; step < steps; step += parts) {
      uint32_t a[kM][4];
      if constexpr (kHalf) {
        const int2 window = load_shared(reinterpret_cast<const int2*>(windows) + step);
#pragma unroll
        for (int m = 0; m < kM; ++m) {
          read_halves(a[m][0], a[m][1], of_lane + window.x, 4 * p.step, slots_[m]);
          read_halves(a[m][2], a[m][3], of_lane + window.y, 4 * p.step, slots_[m]);
        }
      } else {
        const Stored* window = of_lane + load_shared(windows + step);
#pragma unroll
        for (int m = 0; m < kM; ++m) {
          read_words(a[m][0], a[m][1], window, slots_[m]);
          read_words(a[m][2], a[m][3], window + 4 * p.step, slots_[m]);
        }
      }
#pragma unroll
      for (int n = 0; n < kN; n += 2) {
        uint32_t b[2][2];
        read_dy(b, dy, step * 8 * kOctets, n * 8);
#pragma unroll
        for (int m = 0; m < kM; ++m) {
          multiply(sum_[m][n], a[m], b[0]);
          multiply(sum_[m][n + 1], a[m], b[1]);
        }
      }
    }
  }

  __device__ void end_tile() {}
  __device__ void end() {}

  template <typename Visit>
  __device__ void for_each_value(Visit visit) {
#pragma unroll
    for (int m = 0; m < kM; ++m)
#pragma unroll
      for (int n = 0; n < kN; ++n)
#pragma unroll
        for (int v = 0; v < 4; ++v) visit((m * kN + n) * 4 + v, sum_[m][n][v]);
  }

  template <typename Rows>
  __device__ void store(const Rows& rows) const {
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
        rows.store(row(m, half), 0, values);
      }
  }

  static constexpr int kValues = kFewChannelsWarpRows * kColumns / 32;

 private:
  static constexpr int kM = kFewChannelsWarpRows / 16, kN = kColumns / 8;

  __device__ static int lane() { return static_cast<int>(threadIdx.x) % 32; }
  __device__ static int in_group() { return lane() % 4; }
  __device__ static int row(int m, int half) { return 16 * m + lane() / 4 * 2 + half; }

  // Reads both slots at two positions. Position t of eight is paired with t + 4, so that the lanes' positions
  // are neighbours and, within few banks each, do not collide (plan.cc puts rows half of the banks apart).
  __device__ static void read_halves(uint32_t& first, uint32_t& second, const Stored* window, int apart,
                                     SlotOffsets<kPaired> slots) {
    if constexpr (kPaired) {
      const uint32_t near = load_shared(reinterpret_cast<const uint32_t*>(window + slots.first));
      const uint32_t far = load_shared(reinterpret_cast<const uint32_t*>(window + apart + slots.first));
      first = (near & 0xffffu) | far << 16;
      second = near >> 16 | (far & 0xffff0000u);
    } else {
      first = pack_halves(window[slots.first].bits, window[apart + slots.first].bits);
      second = pack_halves(window[slots.second].bits, window[apart + slots.second].bits);
    }
  }
  __device__ static void read_words(uint32_t& first, uint32_t& second, const float* window,
                                    SlotOffsets<kPaired> slots) {
    if constexpr (kPaired) {
      const float2 both = load_shared(reinterpret_cast<const float2*>(window + slots.first));
      first = to_tf32(both.x), second = to_tf32(both.y);
    } else {
      first = to_tf32(load_shared(window + slots.first));
      second = to_tf32(load_shared(window + slots.second));
    }
  }

  // Reads 16 columns, with the positions in the same order.
  __device__ static void read_dy(uint32_t (&b)[2][2], const Stored* dy, int position, int column) {
    if constexpr (kHalf) {
      const int matrix = lane() / 8, line = lane() % 8 / 2 + lane() % 2 * 4;
      uint32_t words[4];
      ldmatrix_x4_trans(
          words, dy + TileB::chunk(position + matrix % 2 * 8 + line, column / kChunk<Stored> + matrix / 2));
      b[0][0] = words[0], b[0][1] = words[1], b[1][0] = words[2], b[1][1] = words[3];
    } else {
#pragma unroll
      for (int n = 0; n < 2; ++n)
#pragma unroll
        for (int far = 0; far < 2; ++far)
          b[n][far] = to_tf32(
              load_shared(dy + TileB::element(column + n * 8 + lane() / 4, position + far * 4 + in_group())));
    }
  }

  __device__ static void multiply(float (&sum)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
    if constexpr (kMath == Math::kBF16) mma_bf16_16x8x16(sum, a, b);
    if constexpr (kMath == Math::kF16) mma_f16_16x8x16(sum, a, b);
    if constexpr (kMath == Math::kTF32) mma_tf32_16x8x8(sum, a, b);
  }

  SlotOffsets<kPaired> slots_[kM];
  float sum_[kM][kN][4] = {};
};

template <int kColumns, bool kPaired>
class FewChannelsFilterSum<Math::kBF16, kColumns, kPaired>
    : public FewChannelsFilterMma<Math::kBF16, kColumns, kPaired> {};
template <int kColumns, bool kPaired>
class FewChannelsFilterSum<Math::kF16, kColumns, kPaired>
    : public FewChannelsFilterMma<Math::kF16, kColumns, kPaired> {};
template <int kColumns, bool kPaired>
class FewChannelsFilterSum<Math::kTF32, kColumns, kPaired>
    : public FewChannelsFilterMma<Math::kTF32, kColumns, kPaired> {};

// With mma.sync in f64: a lane's two slots are rows of two instructions.
template <int kColumns, bool kPaired>
class FewChannelsFilterSum<Math::kF64, kColumns, kPaired> {
 public:
  using TileB = OperandTile<double, kColumns, Major::kMN>;

  __device__ void find_slots(const FewChannelsProblem& p, int first) {
#pragma unroll
    for (int m = 0; m < kM; ++m) slots_[m].find(p, first + row(m, 0));
  }

  __device__ void multiply_add(const FewChannelsProblem& p, const double* patch, const double* dy,
                               const int* windows, int part, int parts, int positions) {
    const double* of_lane = patch + in_group() * p.step;
    for (int octet = part; octet < positions / 8; octet += parts) {
      const double* window = of_lane + load_shared(windows + octet);
#pragma unroll
      for (int four = 0; four < 2; ++four) {
        Pair<double> a[kM];
#pragma unroll
        for (int m = 0; m < kM; ++m) a[m] = read(window + four * 4 * p.step, slots_[m]);
#pragma unroll
        for (int n = 0; n < kN; ++n) {
          const double b =
              load_shared(dy + TileB::element(n * 8 + lane() / 4, octet * 8 + four * 4 + in_group()));
#pragma unroll
          for (int m = 0; m < kM; ++m) {
            mma_f64_8x8x4(sum_[m][0][n], a[m].first, b);
            mma_f64_8x8x4(sum_[m][1][n], a[m].second, b);
          }
        }
      }
    }
  }

  __device__ void end_tile() {}
  __device__ void end() {}

  template <typename Visit>
  __device__ void for_each_value(Visit visit) {
#pragma unroll
    for (int m = 0; m < kM; ++m)
#pragma unroll
      for (int half = 0; half < 2; ++half)
#pragma unroll
        for (int n = 0; n < kN; ++n)
#pragma unroll
          for (int v = 0; v < 2; ++v) visit(((m * 2 + half) * kN + n) * 2 + v, sum_[m][half][n][v]);
  }

  template <typename Rows>
  __device__ void store(const Rows& rows) const {
#pragma unroll
    for (int m = 0; m < kM; ++m)
#pragma unroll
      for (int half = 0; half < 2; ++half) rows.store(row(m, half), 0, sum_[m][half]);
  }

  static constexpr int kValues = kFewChannelsWarpRows * kColumns / 32;

 private:
  static constexpr int kM = kFewChannelsWarpRows / 16, kN = kColumns / 8;

  __device__ static int lane() { return static_cast<int>(threadIdx.x) % 32; }
  __device__ static int in_group() { return lane() % 4; }
  __device__ static int row(int m, int half) { return 16 * m + lane() / 4 * 2 + half; }

  __device__ static Pair<double> read(const double* window, SlotOffsets<kPaired> slots) {
    if constexpr (kPaired) {
      const double2 both = load_shared(reinterpret_cast<const double2*>(window + slots.first));
      return {both.x, both.y};
    }
    return {load_shared(window + slots.first), load_shared(window + slots.second)};
  }

  SlotOffsets<kPaired> slots_[kM];
  double sum_[kM][2][kN][2] = {};
};

}  // namespace convgrad::cuda
