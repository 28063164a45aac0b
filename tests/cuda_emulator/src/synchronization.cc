#include "cuda_emulator/synchronization.h"

#include <string>
#include <utility>

#include "block.h"

namespace cuda_emulator {

void meet(const Meeting& meeting, const void* in, void* out) { Block::current()->meet(meeting, in, out); }
void fail(std::string&& message) { Block::current()->fail(std::move(message)); }
void* dynamic_shared_memory() { return Block::current()->shared_memory(); }
unsigned thread_rank() { return Block::current()->running_thread(); }

void block_barrier() {
  // The barrier must be reached by all threads or by none; hardware tolerates threads that exit instead.
  const Combine all_present = [](Party& block) {
    unsigned exited = 0;
    for (unsigned rank = 0; rank < block.size(); ++rank) exited += !block.has(rank);
    if (exited)
      block.fail(std::to_string(exited) + " threads of the block have exited instead of coming here");
  };
  meet({"__syncthreads", kBlock, kAllLanes, all_present}, nullptr, nullptr);
}

void warp_barrier(unsigned lanes) {
  meet({"__syncwarp", kWarp, lanes, [](Party&) {}}, nullptr, nullptr);
}

unsigned ballot(const char* name, unsigned lanes, bool vote) {
  const Combine count = [](Party& warp) {
    unsigned ballots = 0;
    for (unsigned lane = 0; lane < warp.size(); ++lane)
      if (warp.has(lane)) ballots |= static_cast<unsigned>(warp.in<bool>(lane)) << lane;
    for (unsigned lane = 0; lane < warp.size(); ++lane)
      if (warp.has(lane)) warp.out<unsigned>(lane) = ballots;
  };
  unsigned ballots = 0;
  meet({name, kWarp, lanes, count}, &vote, &ballots);
  return ballots;
}

void check_shuffle_source(Party& warp, unsigned rank, unsigned source) {
  if (!warp.has(source))
    warp.fail("lane " + std::to_string(rank) + " reads lane " + std::to_string(source) +
              ", which takes no part: it has exited, or the mask or the block leaves it out");
}

}  // namespace cuda_emulator
