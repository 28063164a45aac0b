// One block's threads and the order in which they run.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "access_log.h"
#include "async_copies.h"
#include "condition.h"
#include "cuda_emulator/meeting.h"
#include "cuda_emulator/vector_types.h"
#include "fiber.h"
#include "mbarriers.h"
#include "random.h"
#include "tma_copies.h"
#include "warpgroup.h"

namespace cuda_emulator {

inline constexpr unsigned kMaxBlockThreads = 1024, kWarpThreads = 32;

class Block {
 public:
  using Body = void (*)(const void* context);

  Block(dim3 shape, size_t shared_bytes, Body body, const void* context);
  ~Block();
  Block(const Block&) = delete;
  Block& operator=(const Block&) = delete;

  // Runs every thread of the current blockIdx to its end. Returns false, with error() set, if that fails.
  bool run(Random&);
  const std::string& error() const { return error_; }

  // These functions are called by the running thread.
  void meet(const Meeting&, const void* in, void* out);
  void wait_until(Condition&);
  [[noreturn]] void fail(std::string&& message);
  // Makes the launch fail, from outside of all threads.
  void give_up(std::string&& message);
  unsigned running_thread() const { return running_; }
  std::string where(unsigned thread) const;
  std::string where_running() const { return where(running_); }
  void* shared_memory() { return shared_; }
  size_t shared_bytes() const { return shared_bytes_; }
  AsyncCopies& async_copies() { return async_copies_[running_]; }
  Mbarriers& mbarriers() { return mbarriers_; }
  void issue(const TmaCopy& copy) { tma_copies_.issue(copy, *random_, threads_); }
  // Returns the running thread's warpgroup, or null if the block does not have all of its threads.
  Warpgroup* warpgroup() {
    return running_ / kWarpgroupThreads < warpgroups_.size() ? &warpgroups_[running_ / kWarpgroupThreads]
                                                             : nullptr;
  }
  // Return a thread's registers in the running thread's warpgroup (0 if not set), and those of all threads.
  unsigned& registers() { return registers_[running_ / kWarpgroupThreads]; }
  unsigned total_registers() const;
  void count_access(Access access, const void* address, size_t bytes) {
    if (access_log_) access_log_->add(access, running_, address, bytes);
  }

  static Block* current();

 private:
  enum class State : uint8_t { kReady, kWaiting, kPolling, kExited };
  struct Thread {
    Fiber* fiber = nullptr;
    State state = State::kReady;
    const Meeting* meeting = nullptr;  // at which it waits
    const void* in = nullptr;
    void* out = nullptr;
    Condition* condition = nullptr;  // which it polls
  };

  static void run_threads(void* block);
  void take_turn(unsigned thread);
  void become(unsigned thread);
  bool may_run(unsigned thread);
  void pass_turn();
  bool move_what_waits();
  void check_thread_ended();
  void check_block_ended();
  Fiber* exit_running_thread();
  bool complete(const Meeting&, unsigned member);
  bool complete_any_without_exited();
  std::string name_of_wait(unsigned thread) const;
  std::string stalled() const;

  unsigned threads_;
  Body body_;
  const void* context_;
  FiberPool& fibers_;
  void* shared_;
  size_t shared_bytes_;
  std::vector<uint3> index_;  // threadIdx by rank
  std::vector<Thread> thread_;
  std::vector<AsyncCopies> async_copies_;  // by thread
  Mbarriers mbarriers_;
  TmaCopies tma_copies_;
  std::vector<Warpgroup> warpgroups_;
  std::vector<unsigned> registers_;
  std::unique_ptr<AccessLog> access_log_;  // null while counting is off
  std::vector<uint16_t> order_;
  // Bit l of word w stands for lane l of warp w.
  std::vector<uint32_t> waiting_, live_;
  std::vector<Seat> seats_;
  Random* random_ = nullptr;
  unsigned next_turn_ = 0;  // index into order_
  unsigned running_ = 0;
  unsigned exited_ = 0;
  bool failed_ = false;
  std::string error_;
};

}  // namespace cuda_emulator
