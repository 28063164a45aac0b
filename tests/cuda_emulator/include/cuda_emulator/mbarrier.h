// Emulates mbarrier: a barrier object in shared memory that counts arrivals and the bytes of asynchronous
// copies.
//
// Phases are numbered from 0. A phase completes when all arrivals for which the object was initialised have
// come, and all bytes that arrivals have announced. The launch fails if the address is not a multiple of 8 or
// not in the block's shared memory, if there is no barrier, if something else has been stored over it, if
// there are more arrivals than the phase has places, or if a thread waits forever.
#pragma once

#include <cstdint>

namespace cuda_emulator {

void mbarrier_init(uint64_t* barrier, unsigned arrivals);
// Makes the calling thread's new barriers visible to asynchronous copies, which may not use them before.
void mbarrier_init_fence();
void mbarrier_arrive(uint64_t* barrier, unsigned bytes);
// Returns when the phase of this parity, the current one or the one before it, has completed.
void mbarrier_wait(uint64_t* barrier, unsigned parity);

}  // namespace cuda_emulator
