// Counts what launches would cost a GPU, by the rules of its memories.
//
// Only the functions of cuda_src/arch/ptx.cuh and cuda_src/arch/vector_access.cuh are counted. A warp's lanes
// run one after another, so the n-th access of each lane since the warp last met, of one kind and size,
// counts as one instruction of the warp. A warp meets when all lanes that have not exited reach a barrier or
// a collective. A lane that skips an access its neighbours make is therefore out of step until then; a
// cp.async that is not `valid` keeps its place.
#pragma once

#include <cstdint>

namespace cuda_emulator {

// Accesses of warps to global memory, which moves in sectors of 32 aligned bytes.
struct GlobalTraffic {
  uint64_t instructions = 0;
  uint64_t bytes = 0;    // asked for by the lanes
  uint64_t sectors = 0;  // touched by an instruction's lanes, each counted once
};

// Accesses of warps to shared memory: 32 banks, each 4 bytes wide. An instruction's lanes are served in
// groups of 128 bytes: all 32 lanes with 4 bytes each, 16 with 8, 8 with 16. A group takes one wavefront for
// each different word in its fullest bank.
struct SharedTraffic {
  uint64_t instructions = 0;
  uint64_t bytes = 0;
  uint64_t wavefronts = 0;
  uint64_t least_wavefronts = 0;  // if the same words were spread evenly over the banks

  uint64_t excess() const { return wavefronts - least_wavefronts; }  // the cost of bank conflicts
};

struct Counters {
  uint64_t launches = 0;
  GlobalTraffic cp_async_global, load_global, store_global;
  GlobalTraffic tma_global;  // an instruction is one thread's; zeros from outside an array are no traffic
  SharedTraffic cp_async_shared, ldmatrix, load_shared, store_shared;
  SharedTraffic wgmma_shared;  // an instruction is an operand, read once
  // Multiply-adds.
  uint64_t mma_bf16 = 0, mma_f16 = 0, mma_tf32 = 0, mma_f64 = 0;
  uint64_t wgmma_bf16 = 0, wgmma_f16 = 0, wgmma_tf32 = 0;

  Counters& operator+=(const Counters&);
};

// Belongs to the process: launches on any OS thread that begin while counting is on are added when they end.
void start_counting();  // from zero
void stop_counting();
Counters counted();

}  // namespace cuda_emulator
