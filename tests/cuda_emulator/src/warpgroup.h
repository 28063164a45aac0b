// One warpgroup's wgmma instructions in flight, and their sums.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <string>
#include <vector>

#include "cuda_emulator/wgmma.h"
#include "wgmma_operand.h"

namespace cuda_emulator {

inline constexpr unsigned kWarpgroupThreads = 128, kWgmmaRows = 64;

// Instructions are numbered from 0; every thread issues all of them in the same order, each at its own time.
// Ranks are threads' numbers within the warpgroup. Functions that return a string return an error message, or
// an empty string.
class Warpgroup {
 public:
  explicit Warpgroup(unsigned char* shared = nullptr, size_t shared_bytes = 0)
      : shared_(shared), shared_bytes_(shared_bytes), threads_(kWarpgroupThreads) {}

  void fence(unsigned rank) { ++threads_[rank].fences; }
  void commit(unsigned rank) { threads_[rank].group_ends.push_back(threads_[rank].issued); }
  std::string issue(unsigned rank, const Wgmma&, const uint32_t* a_registers, float* d);

  // Returns how many instructions must have ended before all groups except the latest `pending` have.
  size_t covered_by_wait(unsigned rank, unsigned pending) const;
  // Returns how many threads have not yet issued the instruction before this number.
  unsigned missing(size_t end) const;
  // After a wait: computes the sums up to this number, and delivers the thread's own in `d`, unless it is
  // null.
  std::string finish_wait(unsigned rank, size_t end, float* d);
  // Returns an error message if a thread may not end now. Otherwise it may begin again, in the next block.
  std::string end_thread(unsigned rank);
  void clear() { *this = Warpgroup(shared_, shared_bytes_); }

 private:
  struct Sums {
    unsigned columns;
    std::vector<float> value;  // row by row
  };
  struct Instruction {
    Wgmma what;
    std::shared_ptr<Sums> sums;
    WgmmaOperand a, b;
    std::vector<uint32_t> a_at_issue, b_at_issue;
    unsigned threads = 0;  // threads that have issued it
  };
  struct InFlight {  // a thread's registers that are poison
    float* d;
    std::shared_ptr<Sums> sums;
    size_t end;  // one past the last instruction that adds to them
  };
  struct Delivered {  // what a wait has written to a thread's registers
    float* d;
    std::vector<float> value;
    unsigned fences;
  };
  struct Thread {
    size_t issued = 0, waited = 0;   // instructions
    std::vector<size_t> group_ends;  // of groups that no wait has covered
    unsigned fences = 0;
    std::vector<InFlight> in_flight;
    std::vector<Delivered> delivered;
  };

  std::string begin(const Wgmma&, bool a_in_registers, std::shared_ptr<Sums>);
  std::string take_registers(unsigned rank, Instruction&, float* d);
  void count(const Instruction&) const;
  void do_first();

  unsigned char* shared_;
  size_t shared_bytes_;
  std::vector<Thread> threads_;
  std::deque<Instruction> queue_;
  size_t done_ = 0;  // number of instructions before the queue's first
};

}  // namespace cuda_emulator
