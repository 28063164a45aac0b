// Tests mbarriers: phases, and every misuse that the emulator refuses.
#include <cstdint>
#include <vector>

#include "check.h"
#include "cuda_src/arch/ptx_sm90.cuh"
#include "cuda_src/arch/shared_memory.cuh"

using namespace selftest;
using namespace convgrad::cuda;

namespace {

__device__ uint64_t* barriers() { return shared_memory<uint64_t>(); }

// A value travels around the threads' ring: two barriers per round separate readers and writers.
template <bool kSecond>
__global__ void rotate(int* values, int rounds) {
  const unsigned t = threadIdx.x, n = blockDim.x;
  int* ring = shared_memory<int>() + 4;
  if (t == 0) {
    mbarrier_init(&barriers()[0], n);
    mbarrier_init(&barriers()[1], n);
  }
  __syncthreads();
  int value = values[t];
  for (int round = 0; round < rounds; ++round) {
    ring[t] = value;
    mbarrier_arrive(&barriers()[0]);
    mbarrier_wait(&barriers()[0], round % 2);
    value = ring[(t + 1) % n];
    if (!kSecond) continue;
    mbarrier_arrive(&barriers()[1]);
    mbarrier_wait(&barriers()[1], round % 2);
  }
  values[t] = value;
}

template <bool kSecond>
int misplaced_values() {
  constexpr int kThreads = 96, kRounds = 13;
  std::vector<int> values(kThreads);
  for (int t = 0; t < kThreads; ++t) values[t] = t;
  run(rotate<kSecond>, 1, kThreads, 16 + kThreads * 4, values.data(), kRounds);
  int wrong = 0;
  for (int t = 0; t < kThreads; ++t) wrong += values[t] != (t + kRounds) % kThreads;
  return wrong;
}

}  // namespace

TEST(mbarriers_order_reads_after_writes) {
  for (int seed = 1; seed <= 5; ++seed) {
    const WithSeed with(seed);
    check_equal(misplaced_values<true>(), 0, "misplaced values");
  }
}
TEST(a_missing_mbarrier_shows) {
  check(misplaced_values<false>() > 0, "nothing shows that writes overtake reads");
}

// For a new barrier the phase before its first, of parity 1, has completed.
static __global__ void wait_for_the_past(int* out) {
  if (threadIdx.x == 0) mbarrier_init(barriers(), 1);
  __syncthreads();
  mbarrier_wait(barriers(), 1);
  out[threadIdx.x] = 1;
}
TEST(a_new_mbarrier_has_passed_an_odd_phase) {
  std::vector<int> out(32);
  run(wait_for_the_past, 1, 32, 8, out.data());
  check(out == std::vector<int>(32, 1), "a thread has not passed");
}

enum class Misuse {
  kNone,
  kNoInit,
  kInitTwice,
  kNoArrivals,
  kMisaligned,
  kOutside,
  kStoredOver,
  kStoredOverWhileWaiting,
  kParity,
  kNobodyArrives,
  kWrongParity,
};

// The misuse of thread 1; thread 0 initialises and arrives.
template <Misuse kMisuse>
__global__ void misuse(unsigned arrivals) {
  uint64_t* barrier = &barriers()[2];
  if (threadIdx.x == 0 && kMisuse != Misuse::kNoInit) mbarrier_init(barrier, arrivals);
  __syncthreads();
  if (threadIdx.x == 1) {
    if (kMisuse == Misuse::kInitTwice) mbarrier_init(barrier, 1);
    if (kMisuse == Misuse::kNoArrivals) mbarrier_init(barrier + 1, 0);
    if (kMisuse == Misuse::kMisaligned) {
      unsigned char* const off = reinterpret_cast<unsigned char*>(barrier) + 4;
      mbarrier_init(reinterpret_cast<uint64_t*>(off), 1);
    }
    if (kMisuse == Misuse::kOutside) mbarrier_init(&barriers()[4], 1);
    if (kMisuse == Misuse::kStoredOver) *barrier = 0;
    mbarrier_wait(barrier, kMisuse == Misuse::kParity ? 2 : kMisuse == Misuse::kWrongParity ? 1 : 0);
    if (kMisuse == Misuse::kWrongParity) mbarrier_wait(barrier, 1);
  }
  if (threadIdx.x == 0 && kMisuse != Misuse::kNobodyArrives) mbarrier_arrive(barrier);
  __syncthreads();
  if (kMisuse == Misuse::kStoredOverWhileWaiting) {
    if (threadIdx.x == 0) mbarrier_wait(barrier, 1);
    if (threadIdx.x == 1) *barrier = 5;
  }
}

template <Misuse kMisuse>
void check_misuse(const std::string& words) {
  check_fails(words, misuse<kMisuse>, 1, 2, 32, 1u);
}

TEST(misused_mbarriers_are_errors) {
  run(misuse<Misuse::kNone>, 3, 2, 32, 1u);
  check_misuse<Misuse::kNoInit>("at byte 16: no mbarrier has been initialised there");
  check_misuse<Misuse::kInitTwice>("thread (1,0,0), mbarrier.init at byte 16: there is an mbarrier already");
  check_misuse<Misuse::kNoArrivals>("mbarrier.init at byte 24: 0 arrivals, and 1 to 1048575 are possible");
  check_misuse<Misuse::kMisaligned>(
      "mbarrier.init: an address in shared memory that is no multiple of 8, but 4");
  check_misuse<Misuse::kOutside>("mbarrier.init: 8 bytes from byte 32 of the block's 32 bytes");
  check_misuse<Misuse::kStoredOver>("at byte 16: something is stored over the barrier");
  check_misuse<Misuse::kStoredOverWhileWaiting>("at byte 16: something is stored over the barrier");
  check_misuse<Misuse::kParity>("mbarrier.try_wait at byte 16: a parity that is neither 0 nor 1");
  run(misuse<Misuse::kNone>, 3, 2, 32, 1u);  // nothing is left over from the launches that failed
}

TEST(threads_that_wait_at_an_mbarrier_forever_are_an_error) {
  check_misuse<Misuse::kNobodyArrives>(
      "1 at mbarrier.try_wait at byte 16 for parity 0, which lacks 1 of 1 arrivals and 0 bytes, thread "
      "(1,0,0)");
  check_fails("which lacks 1 of 2 arrivals and 0 bytes", misuse<Misuse::kNone>, 1, 2, 32, 2u);
  check_misuse<Misuse::kWrongParity>("for parity 1, which lacks 1 of 1 arrivals");
}

static __global__ void expect(unsigned bytes, int arrivals) {
  mbarrier_init(barriers(), 1);
  for (int i = 0; i < arrivals; ++i) mbarrier_arrive_expect(barriers(), bytes);
}

TEST(arrivals_without_a_place_are_errors) {
  check_fails(
      "mbarrier.arrive.expect_tx at byte 0: one arrival more than the 1 that it was initialised for, "
      "in a phase that lacks 64 bytes",
      expect, 1, 1, 8, 64u, 2);
  check_fails("more bytes than it can count", expect, 1, 1, 8, 1u << 20, 1);
  check_fails(
      "has ended, and the mbarrier at byte 0 is left in a phase that lacks 0 of 1 arrivals and 64 bytes",
      expect, 1, 1, 8, 64u, 1);
}
