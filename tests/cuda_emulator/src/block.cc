#include "block.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <new>
#include <utility>

#include "cuda_emulator/builtin_variables.h"
#include "launch_counters.h"

__thread uint3 threadIdx{};
__thread uint3 blockIdx{};
__thread dim3 blockDim{};
__thread dim3 gridDim{};

namespace cuda_emulator {
namespace {

__thread Block* current_block = nullptr;

// At least the alignment that cuda_src/arch/shared_memory.cuh promises.
constexpr std::align_val_t kSharedAlignment{1024};

std::string name_of(uint3 index) {
  return "(" + std::to_string(index.x) + "," + std::to_string(index.y) + "," + std::to_string(index.z) + ")";
}

bool same(const Meeting& a, const Meeting& b) {
  return a.combine == b.combine && a.lanes == b.lanes && a.warps == b.warps;
}

}  // namespace

Block* Block::current() { return current_block; }

Block::Block(dim3 shape, size_t shared_bytes, Body body, const void* context)
    : threads_(shape.x * shape.y * shape.z),
      body_(body),
      context_(context),
      fibers_(FiberPool::of_this_os_thread()),
      shared_(::operator new(shared_bytes, kSharedAlignment)),
      shared_bytes_(shared_bytes),
      index_(threads_),
      thread_(threads_),
      async_copies_(threads_),
      warpgroups_(threads_ / kWarpgroupThreads,
                  Warpgroup(static_cast<unsigned char*>(shared_), shared_bytes)),
      registers_((threads_ + kWarpgroupThreads - 1) / kWarpgroupThreads),
      order_(threads_),
      waiting_((threads_ + kWarpThreads - 1) / kWarpThreads),
      live_(waiting_.size()),
      seats_(threads_) {
  for (unsigned t = 0; t < threads_; ++t) {
    index_[t] = {t % shape.x, t / shape.x % shape.y, t / shape.x / shape.y};
    order_[t] = static_cast<uint16_t>(t);
  }
  if (launch_counters) access_log_ = std::make_unique<AccessLog>(waiting_.size());
}

Block::~Block() {
  for (Thread& thread : thread_)
    if (thread.fiber) fibers_.give_back(thread.fiber);
  ::operator delete(shared_, kSharedAlignment);
}

bool Block::run(Random& random) {
  // NaN in every floating type, so that unwritten memory does not pass for zero.
  std::memset(shared_, 0xff, shared_bytes_);
  exited_ = 0;
  random_ = &random;
  mbarriers_.clear();
  for (Warpgroup& warpgroup : warpgroups_) warpgroup.clear();
  std::fill(registers_.begin(), registers_.end(), 0);
  for (Thread& thread : thread_) thread.state = State::kReady;
  for (unsigned t = 0; t < threads_; ++t) live_[t / kWarpThreads] |= 1u << t % kWarpThreads;

  Block* outer = std::exchange(current_block, this);
  while (exited_ < threads_ && !failed_) {
    for (unsigned left = threads_; left > 1; --left) std::swap(order_[left - 1], order_[random.below(left)]);
    bool any_turn = false;
    for (next_turn_ = 0; next_turn_ < threads_ && !failed_;) {
      const unsigned thread = order_[next_turn_++];
      if (!may_run(thread)) continue;
      any_turn = true;
      if (!tma_copies_.empty()) pass_turn();
      if (!failed_) take_turn(thread);
    }
    if (!any_turn && !failed_ && !move_what_waits()) give_up(stalled());
  }
  if (!failed_) check_block_ended();
  if (access_log_) access_log_->end_all(*launch_counters);
  current_block = outer;
  return !failed_;
}

bool Block::may_run(unsigned t) {
  Thread& thread = thread_[t];
  if (thread.state == State::kPolling && thread.condition->holds()) thread.state = State::kReady;
  return thread.state == State::kReady;
}

void Block::pass_turn() {
  std::string error = tma_copies_.pass_turn(mbarriers_);
  if (!error.empty()) give_up("block " + name_of(blockIdx) + ": " + error);
}

// Called when no thread can take its turn. Returns false if nothing else moves either.
bool Block::move_what_waits() {
  if (tma_copies_.empty()) return complete_any_without_exited();
  std::string error = tma_copies_.deliver_any(mbarriers_, *random_);
  if (!error.empty()) give_up("block " + name_of(blockIdx) + ": " + error);
  return true;
}

// When a thread exits, its fiber continues as the next thread that has not begun, so threads that never wait
// cost no switch.
void Block::run_threads(void* block) {
  Block& self = *static_cast<Block*>(block);
  for (;;) {
    self.body_(self.context_);
    self.check_thread_ended();
    Fiber* fiber = self.exit_running_thread();
    const unsigned next = self.next_turn_ < self.threads_ ? self.order_[self.next_turn_] : self.running_;
    if (self.thread_[next].state != State::kReady || self.thread_[next].fiber) {
      self.fibers_.give_back(fiber);
      return;
    }
    ++self.next_turn_;
    self.thread_[next].fiber = fiber;
    self.become(next);
  }
}

void Block::become(unsigned thread) {
  running_ = thread;
  threadIdx = index_[thread];
}

void Block::check_thread_ended() {
  if (Warpgroup* const mine = warpgroup()) {
    std::string error = mine->end_thread(running_ % kWarpgroupThreads);
    if (!error.empty()) {
      error.insert(0, where(running_) + " has ended ");
      fail(std::move(error));
    }
  }
  AsyncCopies& copies = async_copies_[running_];
  if (copies.count() != 0)
    fail(where(running_) + " has ended without waiting for " + std::to_string(copies.count()) +
         " of its cp.async");
  copies.forget();  // only empty groups are left
}

void Block::check_block_ended() {
  std::string error = tma_copies_.empty() ? mbarriers_.left_over()
                                          : std::to_string(tma_copies_.count()) + " TMA copies are under way";
  if (!error.empty()) give_up("block " + name_of(blockIdx) + " has ended, and " + error);
  tma_copies_.clear();
}

unsigned Block::total_registers() const {
  unsigned total = 0;
  for (const unsigned registers : registers_) total += registers * kWarpgroupThreads;
  return total;
}

Fiber* Block::exit_running_thread() {
  thread_[running_].state = State::kExited;
  live_[running_ / kWarpThreads] &= ~(1u << running_ % kWarpThreads);
  ++exited_;
  return std::exchange(thread_[running_].fiber, nullptr);
}

void Block::take_turn(unsigned t) {
  Thread& thread = thread_[t];
  if (!thread.fiber) {
    thread.fiber = fibers_.take();
    thread.fiber->reset(&Block::run_threads, this);
  }
  become(t);
  thread.fiber->resume();
}

void Block::meet(const Meeting& meeting, const void* in, void* out) {
  const unsigned self = running_, lane = self % kWarpThreads;
  if (!(meeting.lanes >> lane & 1))
    fail(where(self) + " is at " + meeting.name + " with a mask that does not name its own lane");
  Thread& thread = thread_[self];
  thread.state = State::kWaiting;
  thread.meeting = &meeting;
  thread.in = in;
  thread.out = out;
  waiting_[self / kWarpThreads] |= 1u << lane;
  if (!complete(meeting, self) || failed_) thread.fiber->suspend();
}

// Always gives up its turn, even if there is nothing to wait for: other threads may run first.
void Block::wait_until(Condition& condition) {
  Thread& thread = thread_[running_];
  thread.state = State::kPolling;
  thread.condition = &condition;
  thread.fiber->suspend();
}

// Serves and releases the meeting's threads if all that have not exited are here.
bool Block::complete(const Meeting& meeting, unsigned member) {
  const unsigned first_warp = member / kWarpThreads / meeting.warps * meeting.warps;
  const unsigned end_warp = std::min<unsigned>(first_warp + meeting.warps, waiting_.size());
  for (unsigned w = first_warp; w < end_warp; ++w)
    if ((waiting_[w] & meeting.lanes) != (live_[w] & meeting.lanes)) return false;

  const unsigned first = first_warp * kWarpThreads, end = std::min(end_warp * kWarpThreads, threads_);
  for (unsigned t = first; t < end; ++t) {
    const Thread& thread = thread_[t];
    Seat& seat = seats_[t - first];
    seat.taken = (meeting.lanes >> t % kWarpThreads & 1) && thread.state == State::kWaiting;
    if (!seat.taken) continue;
    if (!same(*thread.meeting, meeting)) return false;
    seat.in = thread.in;
    seat.out = thread.out;
  }

  Party party(seats_.data(), end - first);
  meeting.combine(party);
  if (!party.error().empty()) {
    give_up(where(member) + ", " + meeting.name + ": " + party.error());
    return true;
  }
  for (unsigned t = first; t < end; ++t)
    if (seats_[t - first].taken) thread_[t].state = State::kReady;
  for (unsigned w = first_warp; w < end_warp; ++w) {
    waiting_[w] &= ~meeting.lanes;
    const bool all = (live_[w] & ~meeting.lanes) == 0;
    if (access_log_ && all) access_log_->end_instructions(w, *launch_counters);
  }
  return true;
}

// A thread's exit may complete a meeting that waited for it alone.
bool Block::complete_any_without_exited() {
  for (unsigned t = 0; t < threads_; ++t)
    if (thread_[t].state == State::kWaiting && complete(*thread_[t].meeting, t)) return true;
  return false;
}

void Block::give_up(std::string&& message) {
  failed_ = true;
  error_ = std::move(message);
}

void Block::fail(std::string&& message) {
  give_up(std::move(message));
  thread_[running_].fiber->suspend();
  std::abort();  // nobody resumes a failed block
}

std::string Block::where(unsigned t) const {
  return "block " + name_of(blockIdx) + ", thread " + name_of(index_[t]);
}

std::string Block::name_of_wait(unsigned t) const {
  switch (thread_[t].state) {
    case State::kWaiting:
      return thread_[t].meeting->name;
    case State::kPolling:
      return thread_[t].condition->name();
    default:
      return "exited";
  }
}

std::string Block::stalled() const {
  std::string message = "threads wait for each other in vain in block " + name_of(blockIdx) + ": ";
  std::vector<std::pair<std::string, unsigned>> groups;  // each with its first thread
  std::vector<unsigned> counts;
  for (unsigned t = 0; t < threads_; ++t) {
    const std::string name = name_of_wait(t);
    const auto found = std::find_if(groups.begin(), groups.end(), [&](auto& g) { return g.first == name; });
    if (found != groups.end()) {
      ++counts[found - groups.begin()];
      continue;
    }
    groups.emplace_back(name, t);
    counts.push_back(1);
  }
  for (size_t g = 0; g < groups.size(); ++g)
    message += (g ? "; " : "") + std::to_string(counts[g]) + (groups[g].first == "exited" ? " " : " at ") +
               groups[g].first + ", thread " + name_of(index_[groups[g].second]) + " first";
  return message;
}

}  // namespace cuda_emulator
