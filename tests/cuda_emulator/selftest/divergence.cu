// Tests that threads which wait for each other forever, and other misuse, end the launch with an error that
// says so.
#include <vector>

#include "check.h"

using namespace selftest;

constexpr unsigned kAll = 0xffffffffu;

static __global__ void return_before_barrier(int n) {
  if (static_cast<int>(threadIdx.x) >= n) return;
  __syncthreads();
}

TEST(a_barrier_that_exited_threads_miss_is_an_error) {
  run(return_before_barrier, 2, 64, 0, 64);
  check_fails("24 threads of the block have exited", return_before_barrier, 2, 64, 0, 40);
}

static __global__ void barrier_against_vote(int* out, unsigned mask) {
  if (threadIdx.x < 8) {
    __syncthreads();
  } else {
    out[threadIdx.x] = __any_sync(mask, 1);
    __syncthreads();
  }
}

TEST(a_barrier_against_a_vote_is_an_error) {
  std::vector<int> out(32);
  run(barrier_against_vote, 1, 32, 0, out.data(), 0xffffff00u);
  check_fails("8 at __syncthreads, thread (0,0,0) first; 24 at __any_sync, thread (8,0,0) first",
              barrier_against_vote, 1, 32, 0, out.data(), kAll);
}

static __global__ void one_warp_more_often() {
  __syncthreads();
  if (threadIdx.y == 1) __syncthreads();
}

TEST(one_barrier_too_many_is_an_error) {
  check_fails("block (0,0,0), thread (", one_warp_more_often, 1, dim3(32, 2), 0);
}

static __global__ void different_masks(unsigned* out) {
  out[threadIdx.x] = __ballot_sync(threadIdx.x < 16 ? kAll : 0xffff0000u, 1);
  __syncthreads();
}

TEST(masks_that_disagree_are_an_error) {
  std::vector<unsigned> out(32);
  check_fails("wait for each other in vain", different_masks, 1, 32, 0, out.data());
}

static __global__ void mask_without_self() { __syncwarp(1); }

TEST(a_mask_without_the_own_lane_is_an_error) {
  run(mask_without_self, 1, 1, 0);
  check_fails("a mask that does not name its own lane", mask_without_self, 1, 2, 0);
}

static __global__ void read_exited_lane(int* out) {
  if (threadIdx.x == 5) return;
  out[threadIdx.x] = __shfl_sync(kAll, 1, 5);
}

TEST(a_shuffle_from_an_exited_lane_is_an_error) {
  std::vector<int> out(32);
  check_fails("reads lane 5, which takes no part", read_exited_lane, 1, 32, 0, out.data());
}

static __global__ void trap_in(unsigned block) {
  if (blockIdx.x == block && threadIdx.x == 3) __trap();
  __syncthreads();
}

TEST(a_trap_is_an_error_and_the_next_launch_is_well) {
  for (int round = 0; round < 3; ++round) {
    check_fails("__trap()", trap_in, 4, 64, 0, 2u);
    check_equal(static_cast<int>(cudaPeekAtLastError()), static_cast<int>(cudaErrorLaunchFailure),
                "last error");
    check_equal(static_cast<int>(cudaGetLastError()), static_cast<int>(cudaErrorLaunchFailure), "last error");
    check_equal(static_cast<int>(cudaGetLastError()), static_cast<int>(cudaSuccess),
                "error after it was taken");
    run(trap_in, 4, 64, 0, 4u);
  }
}
