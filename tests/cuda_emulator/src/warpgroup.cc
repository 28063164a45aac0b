#include "warpgroup.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "launch_counters.h"
#include "wgmma_product.h"

namespace cuda_emulator {
namespace {

bool same(const Wgmma& a, const Wgmma& b) {
  return a.a == b.a && a.b == b.b && a.columns == b.columns && a.type == b.type &&
         a.a_by_rows == b.a_by_rows && a.b_by_rows == b.b_by_rows;
}

template <typename Entries>
auto find(Entries& entries, const float* d) {
  return std::find_if(entries.begin(), entries.end(), [&](const auto& entry) { return entry.d == d; });
}

bool is_poison(const float* d, unsigned count) {
  for (unsigned i = 0; i < count; ++i) {
    uint32_t bits;
    std::memcpy(&bits, &d[i], sizeof bits);
    if (bits != ~0u) return false;
  }
  return true;
}

// Returns the place of a thread's i-th sum in the 64 rows.
size_t place(unsigned rank, unsigned i, unsigned columns) {
  const unsigned warp = rank / 32, g = rank % 32 / 4, t = rank % 4;
  return size_t{16 * warp + g + i / 2 % 2 * 8} * columns + i / 4 * 8 + 2 * t + i % 2;
}

// The same for four registers of a, 8 deep.
size_t place_in_a(unsigned rank, unsigned i) {
  const unsigned warp = rank / 32, g = rank % 32 / 4, t = rank % 4;
  return size_t{16 * warp + g + i % 2 * 8} * 8 + t + i / 2 * 4;
}

}  // namespace

std::string Warpgroup::issue(unsigned rank, const Wgmma& what, const uint32_t* a_registers, float* d) {
  Thread& thread = threads_[rank];
  if (thread.fences == 0) return "no wgmma.fence has come before it";
  const auto mine = find(thread.in_flight, d);
  const bool in_flight = mine != thread.in_flight.end();
  if (thread.issued == done_ + queue_.size()) {
    std::string error = begin(what, a_registers != nullptr, in_flight ? mine->sums : nullptr);
    if (!error.empty()) return error;
  }
  Instruction& instruction = queue_[thread.issued - done_];
  if (!same(instruction.what, what)) return "other threads of the warpgroup issue a different instruction";
  if (a_registers)
    for (unsigned i = 0; i < 4; ++i) instruction.a_at_issue[place_in_a(rank, i)] = a_registers[i];
  ++instruction.threads;
  ++thread.issued;
  if (!in_flight) return take_registers(rank, instruction, d);
  if (mine->sums != instruction.sums) return "other threads of the warpgroup add to other sums";
  if (!is_poison(d, what.columns / 2)) return "sums have been changed while a wgmma adds to them";
  mine->end = thread.issued;
  return {};
}

std::string Warpgroup::begin(const Wgmma& what, bool a_in_registers, std::shared_ptr<Sums> sums) {
  if (sums && sums->columns != what.columns) return "its sums are under way in another shape";
  Instruction instruction{};
  instruction.what = what;
  const unsigned number_bytes = what.type == WgmmaType::kTF32 ? 4 : 2;
  instruction.a = {0, 0, 0, what.a_by_rows, a_in_registers ? 0 : kWgmmaRows, number_bytes};
  instruction.b = {0, 0, 0, what.b_by_rows, what.columns, number_bytes};
  if (!a_in_registers) {
    std::string error = instruction.a.decode(what.a, shared_bytes_);
    if (!error.empty()) return "a: " + error;
  }
  std::string error = instruction.b.decode(what.b, shared_bytes_);
  if (!error.empty()) return "b: " + error;
  instruction.a_at_issue = instruction.a.read(shared_);
  instruction.a_at_issue.resize(kWgmmaRows * instruction.a.depth());
  instruction.b_at_issue = instruction.b.read(shared_);
  if (launch_counters) count(instruction);
  if (!sums) {
    sums = std::make_shared<Sums>();
    sums->columns = what.columns;
    sums->value.resize(size_t{kWgmmaRows} * what.columns);
  }
  instruction.sums = std::move(sums);
  queue_.push_back(std::move(instruction));
  return {};
}

void Warpgroup::count(const Instruction& instruction) const {
  const Wgmma& what = instruction.what;
  const unsigned number = kWgmmaRows * instruction.b.depth() * what.columns;
  switch (what.type) {
    case WgmmaType::kBF16:
      launch_counters->wgmma_bf16 += number;
      break;
    case WgmmaType::kF16:
      launch_counters->wgmma_f16 += number;
      break;
    case WgmmaType::kTF32:
      launch_counters->wgmma_tf32 += number;
      break;
  }
  if (instruction.a.rows != 0) instruction.a.count(shared_, launch_counters->wgmma_shared);
  instruction.b.count(shared_, launch_counters->wgmma_shared);
}

std::string Warpgroup::take_registers(unsigned rank, Instruction& instruction, float* d) {
  Thread& thread = threads_[rank];
  for (const InFlight& other : thread.in_flight)
    if (other.sums == instruction.sums) return "other threads of the warpgroup add to other sums";
  const unsigned columns = instruction.what.columns, count = columns / 2;
  const auto before = find(thread.delivered, d);
  if (before != thread.delivered.end()) {
    const bool changed =
        before->value.size() != count || std::memcmp(before->value.data(), d, count * sizeof(float)) != 0;
    if (changed && before->fences == thread.fences)
      return "its sums have been changed, and no wgmma.fence has come since";
    thread.delivered.erase(before);
  }
  for (unsigned i = 0; i < count; ++i) instruction.sums->value[place(rank, i, columns)] = d[i];
  std::memset(d, 0xff, count * sizeof(float));
  thread.in_flight.push_back({d, instruction.sums, thread.issued});
  return {};
}

size_t Warpgroup::covered_by_wait(unsigned rank, unsigned pending) const {
  const std::vector<size_t>& ends = threads_[rank].group_ends;
  return ends.size() > pending ? ends[ends.size() - pending - 1] : threads_[rank].waited;
}

unsigned Warpgroup::missing(size_t end) const {
  return end <= done_ ? 0 : kWarpgroupThreads - queue_[end - done_ - 1].threads;
}

std::string Warpgroup::finish_wait(unsigned rank, size_t end, float* d) {
  Thread& thread = threads_[rank];
  while (done_ < end) do_first();
  thread.waited = std::max(thread.waited, end);
  thread.group_ends.erase(
      std::remove_if(thread.group_ends.begin(), thread.group_ends.end(), [&](size_t g) { return g <= end; }),
      thread.group_ends.end());
  const auto mine = find(thread.in_flight, d);
  if (mine == thread.in_flight.end() || mine->end > thread.waited) return {};
  const unsigned columns = mine->sums->columns, count = columns / 2;
  if (!is_poison(d, count)) return "sums have been changed while a wgmma adds to them";
  for (unsigned i = 0; i < count; ++i) d[i] = mine->sums->value[place(rank, i, columns)];
  thread.in_flight.erase(mine);
  thread.delivered.push_back({d, std::vector<float>(d, d + count), thread.fences});
  return {};
}

void Warpgroup::do_first() {
  Instruction& first = queue_.front();
  std::vector<uint32_t> a = first.a_at_issue, b = first.b.read(shared_);
  if (first.a.rows != 0) {
    a = first.a.read(shared_);
    poison_differences(a, first.a_at_issue);
  }
  poison_differences(b, first.b_at_issue);
  add_product(first.what.type, a, b, first.what.columns, first.sums->value);
  queue_.pop_front();
  ++done_;
}

std::string Warpgroup::end_thread(unsigned rank) {
  const Thread& thread = threads_[rank];
  if (thread.issued != thread.waited)
    return "without waiting for " + std::to_string(thread.issued - thread.waited) + " of its wgmma";
  if (!thread.in_flight.empty()) return "without naming the sums of its wgmma in a wait";
  return {};
}

}  // namespace cuda_emulator
