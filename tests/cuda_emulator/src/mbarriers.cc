#include "mbarriers.h"

#include <algorithm>
#include <utility>

namespace cuda_emulator {
namespace {

constexpr int64_t kMostBytes = (1 << 20) - 1;  // in either direction

std::string place(size_t offset) { return "the mbarrier at byte " + std::to_string(offset); }

}  // namespace

void Mbarrier::complete_phase_if_due() {
  if (pending != 0 || bytes != 0) return;
  ++phase;
  pending = arrivals;
  unseen = std::exchange(copied_to, false);
}

std::string Mbarrier::lacks() const {
  return std::to_string(pending) + " of " + std::to_string(arrivals) + " arrivals and " +
         std::to_string(bytes) + " bytes";
}

Mbarrier* Mbarriers::at(size_t offset) {
  const auto found =
      std::find_if(all_.begin(), all_.end(), [&](const Mbarrier& b) { return b.offset == offset; });
  return found == all_.end() ? nullptr : &*found;
}

Mbarrier& Mbarriers::add(size_t offset, unsigned arrivals, unsigned maker) {
  Mbarrier barrier{};
  barrier.offset = offset;
  barrier.arrivals = barrier.pending = arrivals;
  barrier.maker = maker;
  all_.push_back(barrier);
  return all_.back();
}

void Mbarriers::fence(unsigned maker) {
  for (Mbarrier& barrier : all_)
    if (barrier.maker == maker) barrier.fenced = true;
}

std::string Mbarriers::complete_bytes(size_t offset, uint64_t phase, int64_t bytes) {
  Mbarrier& barrier = *at(offset);
  if (barrier.phase != phase)
    return place(offset) + " has completed a phase without " + std::to_string(bytes) +
           " bytes of a copy that was issued in it: too few were expected";
  barrier.bytes -= bytes;
  barrier.copied_to = true;
  if (barrier.bytes < -kMostBytes) return place(offset) + " has got more bytes than it can count";
  barrier.complete_phase_if_due();
  return {};
}

std::string Mbarriers::left_over() const {
  for (const Mbarrier& barrier : all_) {
    if (barrier.bytes != 0 || barrier.copied_to)
      return place(barrier.offset) + " is left in a phase that lacks " + barrier.lacks();
    if (barrier.unseen) return "nobody has waited at " + place(barrier.offset) + " for the last copies to it";
  }
  return {};
}

}  // namespace cuda_emulator
