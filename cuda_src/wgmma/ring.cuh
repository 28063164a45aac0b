// The stages in shared memory between the warp that has tiles copied and the warpgroups that multiply them. A
// stage is full when its copies' bytes have come, and empty when every warp that multiplies has left it.
#pragma once

#include <cstdint>

#include "cuda_src/arch/ptx_sm90.cuh"

namespace convgrad::cuda {

inline constexpr int kWarpgroup = 128;                   // threads
inline constexpr int kWgmmaSumThreads = 2 * kWarpgroup;  // the first two warpgroups multiply
inline constexpr int kWgmmaThreads = 3 * kWarpgroup;     // the third copies
inline constexpr int kWgmmaSumWarps = kWgmmaSumThreads / 32;
// Registers of a thread: 65536 for 384 threads, of which the copying warpgroup needs few.
inline constexpr int kCopyRegisters = 40, kSumRegisters = 232;

template <int kStages>
struct RingBarriers {
  uint64_t full[kStages], empty[kStages];

  // All threads of the block.
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

// Where a thread is in the ring, and in which round of it.
template <int kStages>
struct RingPlace {
  int stage = 0;
  unsigned round = 0;  // its parity

  __device__ void next() {
    if (++stage < kStages) return;
    stage = 0;
    round ^= 1;
  }
};

// The copying side: one thread. `fill` starts copies of `bytes` in all, to complete on the barrier it is
// given.
template <int kStages, typename Fill>
__device__ __forceinline__ void fill_stage(RingBarriers<kStages>& barriers, RingPlace<kStages>& place,
                                           unsigned bytes, Fill fill) {
  // In the first round stages are empty: to a new barrier the phase before its first has ended.
  mbarrier_wait(&barriers.empty[place.stage], place.round ^ 1);
  uint64_t* full = &barriers.full[place.stage];
  mbarrier_arrive_expect(full, bytes);
  fill(place.stage, full);
  place.next();
}

// The multiplying side: a whole warpgroup. multiply(stage) leaves one group of wgmma under way, so that a
// stage is left when the next one's products have begun.
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
