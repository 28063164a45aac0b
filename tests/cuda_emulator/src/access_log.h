// Puts the accesses of a warp's lanes together into instructions, and counts what those cost.
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

// 128 bytes' worth of a warp's lanes at shared memory, which serves them together.
class SharedPhase {
 public:
  void add(const void* address, size_t bytes);
  void count(SharedTraffic&) const;

 private:
  std::array<uintptr_t, 32> word_{};  // different ones, as addresses in units of 4 bytes
  unsigned words_ = 0;
};

class AccessLog {
 public:
  explicit AccessLog(unsigned warps) : warps_(warps) {}

  // One access of a thread. Null keeps the thread's place in an instruction without touching memory.
  void add(Access, unsigned thread, const void* address, size_t bytes);
  // The warp has met: what its lanes do next belongs to other instructions.
  void end_instructions(unsigned warp, Counters&);
  void end_all(Counters&);

 private:
  static constexpr unsigned kLanes = 32, kSizes = 3;    // 4, 8 and 16 bytes
  using Instruction = std::array<const void*, kLanes>;  // where each lane goes, or null
  // The instructions of one kind and size since the warp last met. Emptied and filled again in place.
  struct Stream {
    std::vector<Instruction> instructions;
    std::array<uint32_t, kLanes> next{};  // each lane's place among them
  };
  using Warp = std::array<Stream, kAccesses * kSizes>;

  std::vector<Warp> warps_;
};

}  // namespace cuda_emulator
