#include "cuda_emulator/mbarrier.h"

#include <cstring>
#include <string>

#include "address.h"
#include "block.h"
#include "condition.h"
#include "mbarrier_access.h"

namespace cuda_emulator {
namespace {

constexpr unsigned kMostArrivals = (1u << 20) - 1;
constexpr uint64_t kMark = 0x6d62617272696572;

std::string at_byte(const char* instruction, size_t offset) {
  return Block::current()->where_running() + ", " + instruction + " at byte " + std::to_string(offset);
}

class PhaseCompleted final : public Condition {
 public:
  PhaseCompleted(uint64_t* barrier, size_t offset, unsigned parity)
      : barrier_(barrier), offset_(offset), parity_(parity) {}
  bool holds() override {
    if (*barrier_ != kMark) {
      Block& block = *Block::current();
      block.give_up(block.where(thread_) + ", mbarrier.try_wait at byte " + std::to_string(offset_) +
                    ": something is stored over the barrier");
      return false;
    }
    Mbarrier& barrier = *Block::current()->mbarriers().at(offset_);
    if ((barrier.phase & 1) == parity_) return false;
    barrier.unseen = false;
    return true;
  }
  std::string name() const override {
    return "mbarrier.try_wait at byte " + std::to_string(offset_) + " for parity " + std::to_string(parity_) +
           ", which lacks " + Block::current()->mbarriers().at(offset_)->lacks();
  }

 private:
  uint64_t* barrier_;
  size_t offset_;
  unsigned parity_;
  unsigned thread_ = Block::current()->running_thread();
};

}  // namespace

Mbarrier& mbarrier_at(const char* instruction, const uint64_t* barrier) {
  check_shared_address(instruction, barrier, sizeof *barrier);
  const size_t offset = shared_offset(barrier);
  Mbarrier* found = Block::current()->mbarriers().at(offset);
  if (!found) fail(at_byte(instruction, offset) + ": no mbarrier has been initialised there");
  if (*barrier != kMark) fail(at_byte(instruction, offset) + ": something is stored over the barrier");
  return *found;
}

void mbarrier_init(uint64_t* barrier, unsigned arrivals) {
  constexpr const char* kName = "mbarrier.init";
  check_shared_address(kName, barrier, sizeof *barrier);
  const size_t offset = shared_offset(barrier);
  if (arrivals < 1 || arrivals > kMostArrivals)
    fail(at_byte(kName, offset) + ": " + std::to_string(arrivals) + " arrivals, and 1 to " +
         std::to_string(kMostArrivals) + " are possible");
  Block& block = *Block::current();
  if (block.mbarriers().at(offset)) fail(at_byte(kName, offset) + ": there is an mbarrier already");
  block.mbarriers().add(offset, arrivals, block.running_thread());
  *barrier = kMark;
}

void mbarrier_init_fence() {
  Block& block = *Block::current();
  block.mbarriers().fence(block.running_thread());
}

void mbarrier_arrive(uint64_t* barrier, unsigned bytes) {
  const char* const name = bytes ? "mbarrier.arrive.expect_tx" : "mbarrier.arrive";
  Mbarrier& state = mbarrier_at(name, barrier);
  if (state.pending == 0)
    fail(at_byte(name, state.offset) + ": one arrival more than the " + std::to_string(state.arrivals) +
         " that it was initialised for, in a phase that lacks " + std::to_string(state.bytes) + " bytes");
  constexpr int64_t kMostBytes = (1 << 20) - 1;
  if (state.bytes + int64_t{bytes} > kMostBytes)
    fail(at_byte(name, state.offset) + ": more bytes than it can count");
  state.bytes += bytes;
  --state.pending;
  state.complete_phase_if_due();
}

void mbarrier_wait(uint64_t* barrier, unsigned parity) {
  const Mbarrier& state = mbarrier_at("mbarrier.try_wait", barrier);
  if (parity > 1) fail(at_byte("mbarrier.try_wait", state.offset) + ": a parity that is neither 0 nor 1");
  PhaseCompleted completed(barrier, state.offset, parity);
  Block::current()->wait_until(completed);
}

}  // namespace cuda_emulator
