// A ring of stages in shared memory between the thread that copies tiles and the warpgroups that multiply
// them. A stage is full when the bytes of its copies have arrived, and empty when every multiplying warp has
// released it.
#pragma once

#include <cstdint>

#include "cuda_src/arch/ptx_sm90.cuh"

namespace convgrad::cuda {

inline constexpr int kWarpgroup = 128;                   // threads
inline constexpr int kWgmmaSumThreads = 2 * kWarpgroup;  // the first two warpgroups multiply
inline constexpr int kWgmmaThreads = 3 * kWarpgroup;     // the third copies
inline constexpr int kWgmmaSumWarps = kWgmmaSumThreads / 32;
// Registers per thread, out of 65536 for 384 threads; the copying warpgroup needs few.
inline constexpr int kCopyRegisters = 40, kSumRegisters = 232;

template <int kStages>
struct RingBarriers {
  uint64_t full[kStages], empty[kStages];

  // Called by all threads of the block.
  __device__ void init() {
    if (threadIdx.x == 0) {
      for (int stage = 0; stage < kStages; ++stage) {
        mbarrier_init(&full[stage], 1);
        mbarrier_init(&empty[stage], kWgmmaSumWarps);
      }
      mbarrier_init_fence();
    }
    __syncthreads();
  }
};

// A thread's stage in the ring, and the parity of its round.
template <int kStages>
struct RingPlace {
  int stage = 0;
  unsigned round = 0;  // parity

  __device__ void next() {
    if (++stage < kStages) return;
    stage = 0;
    round ^= 1;
  }
};

// The copying side, one thread. `fill` starts copies of `bytes` bytes in all, which complete on the barrier
// that it is given.
template <int kStages, typename Fill>
__device__ __forceinline__ void fill_stage(RingBarriers<kStages>& barriers, RingPlace<kStages>& place,
                                           unsigned bytes, Fill fill) {
  // All stages are empty in the first round: on a new barrier the wait for the preceding parity returns at
  // once.
  mbarrier_wait(&barriers.empty[place.stage], place.round ^ 1);
  uint64_t* full = &barriers.full[place.stage];
  mbarrier_arrive_expect(full, bytes);
  fill(place.stage, full);
  place.next();
}

// The multiplying side, a whole warpgroup. multiply(stage) leaves one group of wgmma in flight, so a stage is
// released once the products of the next one have started.
template <int kStages, typename Sum, typename Multiply>
__device__ __forceinline__ void sum_stages(RingBarriers<kStages>& barriers, RingPlace<kStages>& place,
                                           int slices, Sum& sum, Multiply multiply) {
  int left = 0;
  for (int slice = 0; slice < slices; ++slice) {
    mbarrier_wait(&barriers.full[place.stage], place.round);
    multiply(place.stage);
    if (slice > 0) {
      sum.template wait<1>();
      if (threadIdx.x % 32 == 0) mbarrier_arrive(&barriers.empty[left]);
    }
    left = place.stage;
    place.next();
  }
  sum.template wait<0>();
  if (slices > 0 && threadIdx.x % 32 == 0) mbarrier_arrive(&barriers.empty[left]);
}

}  // namespace convgrad::cuda
