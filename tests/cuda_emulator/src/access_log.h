// Groups the accesses of a warp's lanes into instructions, and counts their cost.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "cuda_emulator/counters.h"

namespace cuda_emulator {

enum class Access : uint8_t {
  kCpAsyncRead,
  kGlobalLoad,
  kGlobalStore,
  kCpAsyncWrite,
  kSharedLoad,
  kSharedStore,
};
inline constexpr unsigned kAccesses = 6;

// The lanes' accesses to 128 bytes of shared memory, which are served together.
class SharedPhase {
 public:
  void add(const void* address, size_t bytes);
  void count(SharedTraffic&) const;

 private:
  std::array<uintptr_t, 32> word_{};  // different words, as addresses in units of 4 bytes
  unsigned words_ = 0;
};

class AccessLog {
 public:
  explicit AccessLog(unsigned warps) : warps_(warps) {}

  // Adds one access of a thread. A null address keeps the thread's place in an instruction without touching
  // memory.
  void add(Access, unsigned thread, const void* address, size_t bytes);
  // Called when the warp has met: later accesses of its lanes belong to other instructions.
  void end_instructions(unsigned warp, Counters&);
  void end_all(Counters&);

 private:
  static constexpr unsigned kLanes = 32, kSizes = 3;    // 4, 8 and 16 bytes
  using Instruction = std::array<const void*, kLanes>;  // the address of each lane, or null
  // The instructions of one kind and size since the warp last met. Reused without allocation.
  struct Stream {
    std::vector<Instruction> instructions;
    std::array<uint32_t, kLanes> next{};  // each lane's next instruction
  };
  using Warp = std::array<Stream, kAccesses * kSizes>;

  std::vector<Warp> warps_;
};

}  // namespace cuda_emulator
