// Tests cp.async: what arrives and when, and every misuse that the emulator refuses.
#include <cmath>
#include <vector>

#include "check.h"
#include "cuda_src/arch/ptx.cuh"
#include "cuda_src/arch/shared_memory.cuh"

using namespace selftest;
using convgrad::cuda::cp_async;
using convgrad::cuda::cp_async_commit;
using convgrad::cuda::cp_async_wait;
using convgrad::cuda::shared_memory;

// Each thread copies its own kBytes and reads them back; threads from `valid` on get zeros.
template <int kBytes>
__global__ void copy(const unsigned char* in, unsigned char* out, unsigned valid) {
  unsigned char* own = shared_memory<unsigned char>() + threadIdx.x * kBytes;
  cp_async<kBytes>(own, in + threadIdx.x * kBytes, threadIdx.x < valid);
  cp_async_commit();
  cp_async_wait<0>();
  for (int i = 0; i < kBytes; ++i) out[threadIdx.x * kBytes + i] = own[i];
}

template <int kBytes>
static void check_copy() {
  constexpr unsigned kThreads = 48, kValid = 37;
  // The last copies must not be read: they do not exist.
  std::vector<float4> aligned(kValid * kBytes / sizeof(float4) + 1);
  unsigned char* in = reinterpret_cast<unsigned char*>(aligned.data());
  for (unsigned i = 0; i < kValid * kBytes; ++i) in[i] = static_cast<unsigned char>(i % 255 + 1);
  std::vector<unsigned char> out(kThreads * kBytes, 7);
  run(copy<kBytes>, 1, kThreads, out.size(), static_cast<const unsigned char*>(in), out.data(), kValid);
  for (unsigned i = 0; i < out.size(); ++i)
    check_equal(static_cast<int>(out[i]), i < kValid * kBytes ? static_cast<int>(i % 255 + 1) : 0,
                "byte that was copied");
}

TEST(async_copies_move_4_8_and_16_bytes_or_zeros) {
  check_copy<4>();
  check_copy<8>();
  check_copy<16>();
}

// Sums the copies after each wait, as the copying thread sees them: NaN if something has not arrived.
static __global__ void three_groups(const float* in, float* seen) {
  float* stage = shared_memory<float>();
  for (int i = 0; i < 6; ++i) stage[i] = 100.0f;  // earlier contents of a stage
  cp_async<4>(&stage[0], &in[0], true);
  cp_async<4>(&stage[1], &in[1], true);
  cp_async_commit();
  cp_async<4>(&stage[2], &in[2], true);
  cp_async_commit();
  cp_async<4>(&stage[3], &in[3], true);
  cp_async<4>(&stage[4], &in[4], true);
  cp_async_commit();
  cp_async<4>(&stage[5], &in[5], true);  // not in a group yet
  const auto look = [&](int round) {
    for (int i = 0; i < 6; ++i) seen[6 * round + i] = stage[i];
  };
  look(0);
  cp_async_wait<3>();
  look(1);
  cp_async_wait<2>();
  look(2);
  cp_async_wait<1>();
  look(3);
  cp_async_wait<0>();
  look(4);
  cp_async_commit();
  cp_async_commit();  // an empty group, which counts as a group
  cp_async_wait<1>();
  look(5);
}

TEST(a_wait_delivers_all_groups_but_the_latest) {
  const float in[6] = {1, 2, 3, 4, 5, 6};
  const int arrived[] = {0, 0, 2, 3, 5, 6};
  std::vector<float> seen(36);
  run(three_groups, 1, 1, 6 * sizeof(float), static_cast<const float*>(in), seen.data());
  for (int round = 0; round < 6; ++round)
    for (int i = 0; i < 6; ++i) {
      const float v = seen[6 * round + i];
      if (i < arrived[round])
        check_equal(v, in[i], "number that has arrived");
      else
        check(std::isnan(v), "a number that nobody waited for is there");
    }
}

// A ring of two stages, as a main loop has. Each thread reads what its neighbour copied.
template <bool kWait, bool kBarrierBefore, bool kBarrierAfter>
__global__ void pipeline(const float* in, float* out, int rounds) {
  float* ring = shared_memory<float>();
  const unsigned n = blockDim.x, t = threadIdx.x;
  float sum = 0;
  cp_async<4>(&ring[t], &in[t], true);
  cp_async_commit();
  for (int round = 0; round < rounds; ++round) {
    const unsigned next = round + 1;
    cp_async<4>(&ring[next % 2 * n + t], &in[next * n + t], static_cast<int>(next) < rounds);
    cp_async_commit();
    if (kWait) cp_async_wait<1>();
    if (kBarrierBefore) __syncthreads();
    sum += ring[round % 2 * n + (t + 1) % n];
    if (kBarrierAfter) __syncthreads();
  }
  cp_async_wait<0>();
  out[t] = sum;
}

template <typename Kernel>
static int wrong_sums(Kernel kernel) {
  constexpr unsigned kThreads = 64;
  constexpr int kRounds = 5;
  std::vector<float> in(kRounds * kThreads), out(kThreads);
  for (size_t i = 0; i < in.size(); ++i) in[i] = static_cast<float>(i % 97);
  run(kernel, 1, kThreads, 2 * kThreads * sizeof(float), static_cast<const float*>(in.data()), out.data(),
      kRounds);
  int wrong = 0;
  for (unsigned t = 0; t < kThreads; ++t) {
    float sum = 0;
    for (int round = 0; round < kRounds; ++round) sum += in[round * kThreads + (t + 1) % kThreads];
    wrong += !(out[t] == sum);
  }
  return wrong;
}

TEST(a_pipeline_of_async_copies_is_right) {
  for (int seed = 1; seed <= 5; ++seed) {
    const WithSeed with(seed);
    check_equal(wrong_sums(pipeline<true, true, true>), 0, "wrong sums");
  }
}

TEST(a_pipeline_that_lacks_a_wait_or_a_barrier_gives_nan) {
  check_equal(wrong_sums(pipeline<false, true, true>), 64, "wrong sums without the wait");
  check(wrong_sums(pipeline<true, false, true>) > 0, "nothing shows the missing barrier before the reads");
  check(wrong_sums(pipeline<true, true, false>) > 0, "nothing shows that copies overtake the reads");
}

static __global__ void never_wait(const float* in, bool commit, bool wait) {
  cp_async<4>(shared_memory<float>() + threadIdx.x, in + threadIdx.x, true);
  if (commit) cp_async_commit();
  if (wait) cp_async_wait<0>();
}

TEST(a_thread_that_ends_before_its_copies_is_an_error) {
  const float in[2] = {};
  const float* const at = in;
  run(never_wait, 1, 2, sizeof in, at, true, true);
  check_fails("has ended without waiting for 1 of its cp.async", never_wait, 1, 2, sizeof in, at, true,
              false);
  check_fails("has ended without waiting for 1 of its cp.async", never_wait, 1, 2, sizeof in, at, false,
              true);
  run(never_wait, 2, 2, sizeof in, at, true, true);  // nothing is left over from the launch that failed
}

template <int kBytes>
__global__ void copy_at(const unsigned char* in, int from, int to) {
  cp_async<kBytes>(shared_memory<unsigned char>() + to, in + from, true);
  cp_async_commit();
  cp_async_wait<0>();
}

TEST(misplaced_async_copies_are_errors) {
  std::vector<float4> aligned(4);
  const unsigned char* in = reinterpret_cast<const unsigned char*>(aligned.data());
  run(copy_at<16>, 1, 1, 48, in, 16, 32);
  run(copy_at<8>, 1, 1, 48, in, 8, 40);
  run(copy_at<4>, 1, 1, 48, in, 4, 44);
  const std::string global = "thread (0,0,0), cp.async: an address in global memory that is no multiple of ";
  check_fails(global + "16, but 8 beyond one", copy_at<16>, 1, 1, 48, in, 8, 0);
  check_fails(global + "8, but 4 beyond one", copy_at<8>, 1, 1, 48, in, 4, 0);
  check_fails(global + "4, but 2 beyond one", copy_at<4>, 1, 1, 48, in, 2, 0);
  check_fails("shared memory that is no multiple of 16, but 4 beyond", copy_at<16>, 1, 1, 48, in, 0, 4);
  check_fails("shared memory that is no multiple of 8, but 4 beyond", copy_at<8>, 1, 1, 48, in, 0, 4);
  check_fails("16 bytes from byte 40 of the block's 48 bytes of shared memory", copy_at<16>, 1, 1, 48, in, 0,
              40);
  check_fails("4 bytes from byte 48 of the block's 48 bytes", copy_at<4>, 1, 1, 48, in, 0, 48);
  check_fails("4 bytes from byte -4 of the block's 48 bytes", copy_at<4>, 1, 1, 48, in, 0, -4);
}
