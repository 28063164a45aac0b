// Emulates barriers, shuffles, votes and fences.
#pragma once

#include "cuda_emulator/builtin_variables.h"
#include "cuda_emulator/meeting.h"

namespace cuda_emulator {

void block_barrier();
void warp_barrier(unsigned lanes);
unsigned ballot(const char* name, unsigned lanes, bool vote);

template <typename T>
struct ShuffleOperand {
  T value;
  unsigned source;  // the lane to read
};

// Fails if the source lane does not take part: it has no value to give, and on a GPU the result is undefined.
void check_shuffle_source(Party&, unsigned rank, unsigned source);

template <typename T>
T shuffle(const char* name, unsigned lanes, T value, unsigned source) {
  static_assert(sizeof(T) == 4 || sizeof(T) == 8, "shuffles move 4 or 8 bytes");
  const ShuffleOperand<T> in{value, source};
  T out{};
  const Combine exchange = [](Party& warp) {
    for (unsigned lane = 0; lane < warp.size(); ++lane) {
      if (!warp.has(lane)) continue;
      const unsigned source = warp.in<ShuffleOperand<T>>(lane).source;
      check_shuffle_source(warp, lane, source);
      if (warp.has(source)) warp.out<T>(lane) = warp.in<ShuffleOperand<T>>(source).value;
    }
  };
  meet({name, kWarp, lanes, exchange}, &in, &out);
  return out;
}

}  // namespace cuda_emulator

inline void __syncthreads() { cuda_emulator::block_barrier(); }
inline void __syncwarp(unsigned mask = cuda_emulator::kAllLanes) { cuda_emulator::warp_barrier(mask); }

// `width` cuts a warp into segments. A source outside the lane's own segment means the lane itself, except
// that __shfl_sync wraps and __shfl_xor_sync may read a lower segment.
template <typename T>
T __shfl_sync(unsigned mask, T value, int source, int width = warpSize) {
  const unsigned lane = cuda_emulator::thread_rank() % warpSize, segment = lane & ~(width - 1);
  return cuda_emulator::shuffle("__shfl_sync", mask, value, segment | (source & (width - 1)));
}
template <typename T>
T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = warpSize) {
  const unsigned lane = cuda_emulator::thread_rank() % warpSize, place = lane & (width - 1);
  return cuda_emulator::shuffle("__shfl_up_sync", mask, value, place >= delta ? lane - delta : lane);
}
template <typename T>
T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = warpSize) {
  const unsigned lane = cuda_emulator::thread_rank() % warpSize, place = lane & (width - 1);
  return cuda_emulator::shuffle("__shfl_down_sync", mask, value,
                                place + delta < static_cast<unsigned>(width) ? lane + delta : lane);
}
template <typename T>
T __shfl_xor_sync(unsigned mask, T value, int bits, int width = warpSize) {
  const unsigned lane = cuda_emulator::thread_rank() % warpSize, last = lane | (width - 1);
  const unsigned source = lane ^ static_cast<unsigned>(bits);
  return cuda_emulator::shuffle("__shfl_xor_sync", mask, value, source <= last ? source : lane);
}

inline unsigned __ballot_sync(unsigned mask, int predicate) {
  return cuda_emulator::ballot("__ballot_sync", mask, predicate != 0);
}
inline int __any_sync(unsigned mask, int predicate) {
  return cuda_emulator::ballot("__any_sync", mask, predicate != 0) != 0;
}
inline int __all_sync(unsigned mask, int predicate) {
  return cuda_emulator::ballot("__all_sync", mask, predicate == 0) == 0;
}

// No fence is needed: one OS thread runs the whole grid, so its memory accesses are in order.
inline void __threadfence_block() {}
inline void __threadfence() {}

[[noreturn]] inline void __trap() { cuda_emulator::fail("__trap()"); }
