// Orders the turns of blocks and threads randomly, and reproducibly for a seed.
#pragma once

#include <cstdint>

namespace cuda_emulator {

// A step of Weyl's sequence, scrambled by two multiplications (splitmix64).
class Random {
 public:
  explicit Random(uint64_t seed) : state_(seed) {}

  uint64_t bits() {
    uint64_t z = state_ += 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
  }
  // Returns one of 0 .. end-1; the bias of at most end/2^32 does not matter for an order.
  uint32_t below(uint32_t end) { return static_cast<uint32_t>(((bits() >> 32) * end) >> 32); }

 private:
  uint64_t state_;
};

}  // namespace cuda_emulator
