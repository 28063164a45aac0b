// The primitive beneath every barrier, shuffle, vote and matrix instruction.
//
// Threads of a warp, a warpgroup or a block meet: each brings an operand and waits; the last to arrive
// computes every thread's result from all operands at once; then all continue. So an instruction that works
// on whole fragments, like mma.sync, costs one meeting, however much data it moves.
#pragma once

#include <string>
#include <utility>

namespace cuda_emulator {

class Party;
using Combine = void (*)(Party&);

inline constexpr unsigned kAllLanes = 0xffffffffu;
// The number of warps that take part.
inline constexpr unsigned kWarp = 1, kWarpgroup = 4, kBlock = 32;

struct Meeting {
  const char* name;  // for error messages
  unsigned warps;    // kWarp, kWarpgroup or kBlock, those of the calling thread
  unsigned lanes;    // a mask of the lanes of each of these warps
  Combine combine;   // also identifies the kind of meeting
};

// A thread's operand, and the place for its result.
struct Seat {
  const void* in = nullptr;
  void* out = nullptr;
  bool taken = false;
};

// The threads that met. A rank is a thread's number within the warp, warpgroup or block.
class Party {
 public:
  Party(const Seat* seats, unsigned size) : seats_(seats), size_(size) {}

  unsigned size() const { return size_; }
  // Returns false for lanes outside the mask, and for threads that have exited or never existed.
  bool has(unsigned rank) const { return rank < size_ && seats_[rank].taken; }
  template <typename T>
  const T& in(unsigned rank) const {
    return *static_cast<const T*>(seats_[rank].in);
  }
  template <typename T>
  T& out(unsigned rank) const {
    return *static_cast<T*>(seats_[rank].out);
  }

  // Makes the launch fail with this message.
  void fail(std::string message) {
    if (error_.empty()) error_ = std::move(message);
  }
  const std::string& error() const { return error_; }

 private:
  const Seat* seats_;
  unsigned size_;
  std::string error_;
};

// Returns when all of the meeting's threads that have not exited have arrived and been served.
void meet(const Meeting&, const void* in, void* out);

// Ends the calling thread and makes the launch fail. Its stack is abandoned without running destructors, so
// the message is moved.
[[noreturn]] void fail(std::string&& message);

// Returns exactly the bytes that the launch asked for.
void* dynamic_shared_memory();

// Returns the calling thread's number in its block, x fastest.
unsigned thread_rank();

}  // namespace cuda_emulator
