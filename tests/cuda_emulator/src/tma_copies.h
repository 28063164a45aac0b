// The block's TMA copies in flight. Each arrives after a random number of turns, or when nothing else can
// move; until then its destination is poison.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "box.h"
#include "mbarriers.h"
#include "random.h"

namespace cuda_emulator {

struct TmaCopy {
  Box box;
  unsigned char* shared;  // start of shared memory
  size_t to, barrier;     // offsets in it
  uint64_t phase;         // of the barrier, at issue
  uint64_t turns_left = 0;

  size_t bytes() const { return static_cast<size_t>(box.map.lines() * box.map.line_bytes()); }
  void poison() const;
  void deliver() const;
};

class TmaCopies {
 public:
  void clear() { copies_.clear(); }
  bool empty() const { return copies_.empty(); }
  size_t count() const { return copies_.size(); }
  void issue(const TmaCopy&, Random&, unsigned threads);
  // Both return an error message, or an empty string.
  std::string pass_turn(Mbarriers&);
  std::string deliver_any(Mbarriers&, Random&);

 private:
  std::string deliver(size_t copy, Mbarriers&);

  std::vector<TmaCopy> copies_;
};

}  // namespace cuda_emulator
