// The mbarriers of a block. Their counts are kept here; shared memory holds a mark in the place of each, by
// which a store over it is detected.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace cuda_emulator {

struct Mbarrier {
  size_t offset;      // in shared memory
  unsigned arrivals;  // arrivals that complete a phase
  unsigned pending;   // arrivals that this phase still needs
  int64_t bytes = 0;  // announced bytes that have not come; negative if they came first
  uint64_t phase = 0;
  unsigned maker;                          // the thread that initialised it
  bool fenced = false;                     // copies may use it
  bool copied_to = false, unseen = false;  // this phase got bytes; the last did, without a wait

  void complete_phase_if_due();
  std::string lacks() const;
};

class Mbarriers {
 public:
  void clear() { all_.clear(); }
  Mbarrier* at(size_t offset);
  Mbarrier& add(size_t offset, unsigned arrivals, unsigned maker);
  void fence(unsigned maker);
  // Completes bytes of a copy that was issued in this phase. Returns an error message, or an empty string.
  std::string complete_bytes(size_t offset, uint64_t phase, int64_t bytes);
  // Returns an error message if the block may not end now, or an empty string.
  std::string left_over() const;

 private:
  std::vector<Mbarrier> all_;  // few
};

}  // namespace cuda_emulator
