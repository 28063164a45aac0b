#include "block.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <new>
#include <utility>

#include "cuda_emulator/builtin_variables.h"

__constinit thread_local uint3 threadIdx{};
__constinit thread_local uint3 blockIdx{};
__constinit thread_local dim3 blockDim{};
__constinit thread_local dim3 gridDim{};

namespace cuda_emulator {
namespace {

__constinit thread_local Block* current_block = nullptr;

// Kernels may count on cuda_src/shared_memory.cuh's alignment.
constexpr std::align_val_t kSharedAlignment{128};

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
      order_(threads_),
      waiting_((threads_ + kWarpThreads - 1) / kWarpThreads),
      live_(waiting_.size()),
      seats_(threads_) {
  for (unsigned t = 0; t < threads_; ++t) {
    index_[t] = {t % shape.x, t / shape.x % shape.y, t / shape.x / shape.y};
    order_[t] = static_cast<uint16_t>(t);
  }
}

Block::~Block() {
  for (Thread& thread : thread_)
    if (thread.fiber) fibers_.give_back(thread.fiber);
  ::operator delete(shared_, kSharedAlignment);
}

bool Block::run(Random& random) {
  // NaN in every floating type: what nobody wrote does not pass for a zero.
  std::memset(shared_, 0xff, shared_bytes_);
  exited_ = 0;
  for (Thread& thread : thread_) thread.state = State::kReady;
  for (unsigned t = 0; t < threads_; ++t) live_[t / kWarpThreads] |= 1u << t % kWarpThreads;

  Block* outer = std::exchange(current_block, this);
  while (exited_ < threads_ && !failed_) {
    for (unsigned left = threads_; left > 1; --left) std::swap(order_[left - 1], order_[random.below(left)]);
    bool any_turn = false;
    for (const unsigned thread : order_) {
      if (thread_[thread].state != State::kReady) continue;
      any_turn = true;
      take_turn(thread);
      if (failed_) break;
    }
    if (!any_turn && !complete_any_without_exited()) give_up(stalled());
  }
  current_block = outer;
  return !failed_;
}

void Block::run_thread(void* block) {
  const Block& self = *static_cast<Block*>(block);
  self.body_(self.context_);
}

void Block::take_turn(unsigned t) {
  Thread& thread = thread_[t];
  if (!thread.fiber) {
    thread.fiber = fibers_.take();
    thread.fiber->reset(&Block::run_thread, this);
  }
  running_ = t;
  threadIdx = index_[t];
  if (!thread.fiber->resume()) return;
  fibers_.give_back(std::exchange(thread.fiber, nullptr));
  thread.state = State::kExited;
  live_[t / kWarpThreads] &= ~(1u << t % kWarpThreads);
  ++exited_;
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
  for (unsigned w = first_warp; w < end_warp; ++w) waiting_[w] &= ~meeting.lanes;
  return true;
}

// A thread's exit may leave a meeting complete that waited for nobody else.
bool Block::complete_any_without_exited() {
  for (unsigned t = 0; t < threads_; ++t)
    if (thread_[t].state == State::kWaiting && complete(*thread_[t].meeting, t)) return true;
  return false;
}

void Block::give_up(const std::string& message) {
  if (failed_) return;
  failed_ = true;
  error_ = message;
}

void Block::fail(const std::string& message) {
  give_up(message);
  thread_[running_].fiber->suspend();
  std::abort();  // nobody resumes a failed block
}

std::string Block::where(unsigned t) const {
  return "block " + name_of(blockIdx) + ", thread " + name_of(index_[t]);
}

std::string Block::stalled() const {
  std::string message = "threads wait for each other in vain in block " + name_of(blockIdx) + ": ";
  std::vector<std::pair<std::string, unsigned>> groups;  // each with its first thread
  std::vector<unsigned> counts;
  for (unsigned t = 0; t < threads_; ++t) {
    const std::string name = thread_[t].state == State::kExited ? "exited" : thread_[t].meeting->name;
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
