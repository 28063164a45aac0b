#include "access_log.h"

#include <algorithm>

namespace cuda_emulator {
namespace {

constexpr size_t kSectorBytes = 32, kWordBytes = 4, kPhaseBytes = 128;
constexpr unsigned kBanks = 32;

template <size_t kSize>
void add_if_new(std::array<uintptr_t, kSize>& known, unsigned& count, uintptr_t value) {
  const auto end = known.begin() + count;
  if (std::find(known.begin(), end, value) == end) known[count++] = value;
}

template <size_t kLanes>
void count_global(const std::array<const void*, kLanes>& lanes, size_t bytes, GlobalTraffic& traffic) {
  std::array<uintptr_t, kLanes> sectors;  // an aligned access of at most 16 bytes lies in one sector
  unsigned count = 0;
  for (const void* address : lanes) {
    if (!address) continue;
    traffic.bytes += bytes;
    add_if_new(sectors, count, reinterpret_cast<uintptr_t>(address) / kSectorBytes);
  }
  ++traffic.instructions;
  traffic.sectors += count;
}

template <size_t kLanes>
void count_shared(const std::array<const void*, kLanes>& lanes, size_t bytes, SharedTraffic& traffic) {
  const size_t phase_lanes = kPhaseBytes / bytes;
  for (size_t first = 0; first < kLanes; first += phase_lanes) {
    SharedPhase phase;
    for (size_t lane = first; lane < first + phase_lanes; ++lane) {
      if (!lanes[lane]) continue;
      traffic.bytes += bytes;
      phase.add(lanes[lane], bytes);
    }
    phase.count(traffic);
  }
  ++traffic.instructions;
}

void count_instruction(Access access, const std::array<const void*, 32>& lanes, size_t bytes, Counters& to) {
  switch (access) {
    case Access::kCpAsyncRead:
      return count_global(lanes, bytes, to.cp_async_global);
    case Access::kGlobalLoad:
      return count_global(lanes, bytes, to.load_global);
    case Access::kGlobalStore:
      return count_global(lanes, bytes, to.store_global);
    case Access::kCpAsyncWrite:
      return count_shared(lanes, bytes, to.cp_async_shared);
    case Access::kSharedLoad:
      return count_shared(lanes, bytes, to.load_shared);
    case Access::kSharedStore:
      return count_shared(lanes, bytes, to.store_shared);
  }
}

}  // namespace

void SharedPhase::add(const void* address, size_t bytes) {
  const uintptr_t first = reinterpret_cast<uintptr_t>(address) / kWordBytes;
  for (size_t i = 0; i < bytes / kWordBytes; ++i) add_if_new(word_, words_, first + i);
}

void SharedPhase::count(SharedTraffic& traffic) const {
  std::array<unsigned, kBanks> asked{};
  unsigned most = 0;
  for (unsigned i = 0; i < words_; ++i) most = std::max(most, ++asked[word_[i] % kBanks]);
  traffic.wavefronts += most;
  traffic.least_wavefronts += (words_ + kBanks - 1) / kBanks;
}

void AccessLog::add(Access access, unsigned thread, const void* address, size_t bytes) {
  const unsigned lane = thread % kLanes, size = bytes == 4 ? 0 : bytes == 8 ? 1 : 2;
  Stream& stream = warps_[thread / kLanes][static_cast<unsigned>(access) * kSizes + size];
  const uint32_t at = stream.next[lane]++;
  if (at == stream.instructions.size()) stream.instructions.emplace_back();
  stream.instructions[at][lane] = address;
}

void AccessLog::end_instructions(unsigned warp, Counters& counters) {
  for (unsigned s = 0; s < kAccesses * kSizes; ++s) {
    Stream& stream = warps_[warp][s];
    if (stream.instructions.empty()) continue;
    for (const Instruction& lanes : stream.instructions)
      count_instruction(static_cast<Access>(s / kSizes), lanes, size_t{4} << s % kSizes, counters);
    stream.instructions.clear();
    stream.next.fill(0);
  }
}

void AccessLog::end_all(Counters& counters) {
  for (unsigned warp = 0; warp < warps_.size(); ++warp) end_instructions(warp, counters);
}

}  // namespace cuda_emulator
