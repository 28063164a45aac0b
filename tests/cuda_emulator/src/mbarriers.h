// The mbarriers of a block. What they count is kept here; shared memory holds a mark in each one's place, by
// which a store over it is noticed.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace cuda_emulator {

struct Mbarrier {
  size_t offset;      // in shared memory
  unsigned arrivals;  // that complete a phase
  unsigned pending;   // arrivals that this phase still lacks
  int64_t bytes = 0;  // that are announced and have not come; negative if they came first
  uint64_t phase = 0;
  unsigned maker;                          // the thread that has initialised it
  bool fenced = false;                     // copies may use it
  bool copied_to = false, unseen = false;  // this phase has got bytes; so had the last, and nobody waited

  void complete_phase_if_due();
  std::string lacks() const;
};

class Mbarriers {
 public:
  void clear() { all_.clear(); }
  Mbarrier* at(size_t offset);
  Mbarrier& add(size_t offset, unsigned arrivals, unsigned maker);
  void fence(unsigned maker);
  // Of a copy that was issued in this phase. Returns what is wrong, or nothing.
  std::string complete_bytes(size_t offset, uint64_t phase, int64_t bytes);
  // What is wrong with a block that ends now, or nothing.
  std::string left_over() const;

 private:
  std::vector<Mbarrier> all_;  // few
};

}  // namespace cuda_emulator
