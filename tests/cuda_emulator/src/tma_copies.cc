#include "tma_copies.h"

#include <cstring>
#include <utility>

#include "swizzle.h"

namespace cuda_emulator {

void TmaCopy::poison() const { std::memset(shared + to, 0xff, bytes()); }

void TmaCopy::deliver() const {
  BoxLines lines(box);
  BoxLine line;
  for (size_t at = to; lines.next(line); at += kLineBytes) {
    unsigned char bytes[kLineBytes] = {};
    if (line.from) std::memcpy(bytes + line.skipped, line.from, line.bytes);
    for (size_t chunk = 0; chunk < kLineBytes; chunk += kChunkBytes)
      std::memcpy(shared + swizzled(at + chunk), bytes + chunk, kChunkBytes);
  }
}

void TmaCopies::issue(const TmaCopy& copy, Random& random, unsigned threads) {
  copy.poison();
  copies_.push_back(copy);
  copies_.back().turns_left = random.below(2 * threads + 1);
}

std::string TmaCopies::pass_turn(Mbarriers& barriers) {
  for (size_t i = 0; i < copies_.size();) {
    if (copies_[i].turns_left-- != 0) {
      ++i;
      continue;
    }
    std::string error = deliver(i, barriers);
    if (!error.empty()) return error;
  }
  return {};
}

std::string TmaCopies::deliver_any(Mbarriers& barriers, Random& random) {
  return deliver(random.below(static_cast<uint32_t>(copies_.size())), barriers);
}

std::string TmaCopies::deliver(size_t i, Mbarriers& barriers) {
  const TmaCopy copy = copies_[i];
  copies_[i] = copies_.back();
  copies_.pop_back();
  copy.deliver();
  return barriers.complete_bytes(copy.barrier, copy.phase, static_cast<int64_t>(copy.bytes()));
}

}  // namespace cuda_emulator
