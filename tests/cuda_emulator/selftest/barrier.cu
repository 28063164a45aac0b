// Tests that block barriers order what they should, and that a missing barrier is detected.
#include <vector>

#include "check.h"
#include "cuda_src/arch/shared_memory.cuh"

using namespace selftest;

// Passes values around a ring, one place per round.
template <bool kBothBarriers>
__global__ void rotate(const int* in, int* out, int rounds) {
  int* ring = convgrad::cuda::shared_memory<int>();
  const unsigned n = blockDim.x, t = threadIdx.x;
  int value = in[blockIdx.x * n + t];
  for (int round = 0; round < rounds; ++round) {
    ring[t] = value;
    if (kBothBarriers) __syncthreads();
    value = ring[(t + 1) % n];
    __syncthreads();
  }
  out[blockIdx.x * n + t] = value;
}

static std::vector<int> rotated(void (*kernel)(const int*, int*, int), unsigned blocks, unsigned n,
                                int rounds) {
  std::vector<int> in(blocks * n), out(blocks * n, -7);
  for (size_t i = 0; i < in.size(); ++i) in[i] = static_cast<int>(i);
  run(kernel, blocks, n, n * sizeof(int), in.data(), out.data(), rounds);
  return out;
}

TEST(barriers_order_reads_after_writes) {
  constexpr unsigned kBlocks = 3, n = 200;
  constexpr int kRounds = 37;
  for (int seed = 1; seed <= 5; ++seed) {
    const WithSeed with(seed);
    const std::vector<int> out = rotated(rotate<true>, kBlocks, n, kRounds);
    for (unsigned b = 0; b < kBlocks; ++b)
      for (unsigned t = 0; t < n; ++t)
        check_equal(out[b * n + t], static_cast<int>(b * n + (t + kRounds) % n), "rotated value");
  }
}

TEST(a_missing_barrier_changes_the_result_with_the_seed) {
  std::vector<int> out[2];
  for (int seed = 0; seed < 2; ++seed) {
    const WithSeed with(seed);
    out[seed] = rotated(rotate<false>, 1, 64, 1);
    check(out[seed] == rotated(rotate<false>, 1, 64, 1), "one seed gave two results");
  }
  check(out[0] != out[1], "two seeds gave the same result");
}

// The last thread to arrive leaves its mark; it must not be the same thread at every barrier.
static __global__ void last_writer(int* out, int rounds) {
  int* last = convgrad::cuda::shared_memory<int>();
  for (int round = 0; round < rounds; ++round) {
    *last = static_cast<int>(threadIdx.x);
    __syncthreads();
    if (threadIdx.x == 0) out[round] = *last;
    __syncthreads();
  }
}

TEST(order_is_reshuffled_at_every_barrier) {
  std::vector<int> out(16);
  run(last_writer, 1, 256, sizeof(int), out.data(), 16);
  int changes = 0;
  for (size_t i = 1; i < out.size(); ++i) changes += out[i] != out[i - 1];
  check(changes >= 12, "the same thread came last again and again");
}
