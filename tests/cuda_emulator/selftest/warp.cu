// Compares shuffles and votes with the formulas of CUDA's programming guide.
#include <vector>

#include "check.h"

using namespace selftest;

constexpr unsigned kAll = 0xffffffffu;

struct Shuffled {
  int index, up, down, bits;
};

static __global__ void shuffle(Shuffled* out, int operand, int width) {
  const int value = static_cast<int>(threadIdx.x) * 10;
  out[threadIdx.x] = {__shfl_sync(kAll, value, operand, width), __shfl_up_sync(kAll, value, operand, width),
                      __shfl_down_sync(kAll, value, operand, width),
                      __shfl_xor_sync(kAll, value, operand, width)};
}

TEST(shuffles_read_the_right_lane) {
  for (const int width : {32, 16, 8, 4, 2, 1})
    for (int operand = 0; operand < 32; ++operand) {
      std::vector<Shuffled> out(64);
      run(shuffle, 1, 64, 0, out.data(), operand, width);
      for (int t = 0; t < 64; ++t) {
        const int segment = t / width * width, place = t - segment;
        const int warp_end = t / 32 * 32 + 32, flipped = t / 32 * 32 + ((t % 32) ^ operand);
        check_equal(out[t].index, 10 * (segment + operand % width), "__shfl_sync");
        check_equal(out[t].up, 10 * (place - operand >= 0 ? t - operand : t), "__shfl_up_sync");
        check_equal(out[t].down, 10 * (place + operand < width ? t + operand : t), "__shfl_down_sync");
        check(flipped < warp_end, "the flipped lane lies in the warp");
        check_equal(out[t].bits, 10 * (flipped < segment + width ? flipped : t), "__shfl_xor_sync");
      }
    }
}

template <typename T>
__global__ void sum(const T* in, T* out) {
  T total = in[threadIdx.x];
  for (int bit = 16; bit > 0; bit /= 2) total += __shfl_xor_sync(kAll, total, bit);
  out[threadIdx.x] = total;
}

template <typename T>
static void check_sum() {
  std::vector<T> in(32), out(32);
  for (int i = 0; i < 32; ++i) in[i] = static_cast<T>(i * i);
  run(sum<T>, 1, 32, 0, in.data(), out.data());
  for (const T total : out) check_equal(total, static_cast<T>(31 * 32 * 63 / 6), "sum over the warp");
}

TEST(shuffles_move_4_and_8_bytes) {
  check_sum<float>();
  check_sum<double>();
  check_sum<unsigned>();
  check_sum<long long>();
}

struct Votes {
  unsigned ballot;
  int any, all;
};

static __global__ void vote(const int* predicate, Votes* out) {
  const int p = predicate[threadIdx.x];
  out[threadIdx.x] = {__ballot_sync(kAll, p), __any_sync(kAll, p), __all_sync(kAll, p)};
}

TEST(votes_count_the_warp_alone) {
  // Warp 0 votes mixed, warp 1 all true, warp 2 all false.
  std::vector<int> predicate(96);
  unsigned mixed = 0;
  for (int t = 0; t < 96; ++t) {
    predicate[t] = t < 32 ? t % 3 == 0 : t < 64 ? 2 : 0;
    if (t < 32) mixed |= static_cast<unsigned>(predicate[t]) << t;
  }
  std::vector<Votes> out(96);
  run(vote, 1, 96, 0, predicate.data(), out.data());
  for (int t = 0; t < 96; ++t) {
    check_equal(out[t].ballot, t < 32 ? mixed : t < 64 ? kAll : 0u, "__ballot_sync");
    check_equal(out[t].any != 0, t < 64, "__any_sync");
    check_equal(out[t].all != 0, t >= 32 && t < 64, "__all_sync");
  }
}

// The two halves of a warp diverge and meet among themselves, a different number of times.
static __global__ void halves(int* out) {
  const int lane = static_cast<int>(threadIdx.x);
  int value = lane;
  if (lane < 16) {
    for (int i = 0; i < 3; ++i) value = __shfl_sync(0x0000ffffu, value, (lane + 1) % 16);
  } else {
    value = __shfl_down_sync(0xffff0000u, value, 1);
  }
  __syncwarp();
  out[lane] = value;
}

TEST(disjoint_masks_meet_apart) {
  std::vector<int> out(32);
  run(halves, 1, 32, 0, out.data());
  for (int lane = 0; lane < 32; ++lane)
    check_equal(out[lane], lane < 16 ? (lane + 3) % 16 : lane < 31 ? lane + 1 : 31, "value of a lane");
}

// Lanes that have exited, or that a small block never had, block no other lane.
static __global__ void some_exit(unsigned* out) {
  if (threadIdx.x % 2 == 1) return;
  out[threadIdx.x] = __ballot_sync(kAll, 1);
}

TEST(exited_lanes_are_not_waited_for) {
  std::vector<unsigned> out(40);
  run(some_exit, 1, 40, 0, out.data());
  for (int t = 0; t < 40; t += 2)
    check_equal(out[t], t < 32 ? 0x55555555u : 0x55u, "ballot of the even lanes");
}

static __global__ void hand_over(int* scratch, int* out) {
  scratch[threadIdx.x] = static_cast<int>(threadIdx.x);
  __syncwarp();
  out[threadIdx.x] = scratch[threadIdx.x ^ 31];
}

TEST(syncwarp_orders_reads_after_writes) {
  std::vector<int> scratch(64, -1), out(64);
  run(hand_over, 1, 64, 0, scratch.data(), out.data());
  for (int t = 0; t < 64; ++t) check_equal(out[t], t ^ 31, "value of the opposite lane");
}
