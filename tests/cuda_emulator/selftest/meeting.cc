// Tests the primitive itself, as instructions on fragments use it. It belongs to the emulator, not to CUDA,
// so this file is for the host compiler alone.
#include "cuda_emulator/meeting.h"

#include <vector>

#include "check.h"

using namespace selftest;
using cuda_emulator::Party;

namespace {

struct Fragment {
  float value[8];
};

// Every thread gives 8 numbers and gets 4 sums over its warpgroup.
void sum_fragments(const Fragment* in, float4* out) {
  float sums[4] = {};
  const auto combine = [](Party& group) {
    float total[4] = {};
    for (unsigned rank = 0; rank < group.size(); ++rank)
      for (int i = 0; i < 8; ++i) total[i % 4] += group.in<Fragment>(rank).value[i];
    for (unsigned rank = 0; rank < group.size(); ++rank)
      for (int i = 0; i < 4; ++i) group.out<float[4]>(rank)[i] = total[i];
  };
  const cuda_emulator::Meeting meeting{"sum_fragments", cuda_emulator::kWarpgroup, cuda_emulator::kAllLanes,
                                       combine};
  for (int round = 0; round < 3; ++round) cuda_emulator::meet(meeting, &in[threadIdx.x], sums);
  out[threadIdx.x] = {sums[0], sums[1], sums[2], sums[3]};
}

void fail_in_combine() {
  const auto combine = [](Party& group) { group.fail("no such fragment"); };
  cuda_emulator::meet({"broken", cuda_emulator::kWarp, cuda_emulator::kAllLanes, combine}, nullptr, nullptr);
}

}  // namespace

TEST(warpgroups_exchange_whole_fragments) {
  constexpr int kThreads = 256, kGroup = 128;
  std::vector<Fragment> in(kThreads);
  for (int t = 0; t < kThreads; ++t)
    for (int i = 0; i < 8; ++i) in[t].value[i] = static_cast<float>(t * (i + 1));
  std::vector<float4> out(kThreads);
  run(sum_fragments, 1, kThreads, 0, static_cast<const Fragment*>(in.data()), out.data());
  for (int t = 0; t < kThreads; ++t) {
    const int first = t / kGroup * kGroup, ranks = kGroup * first + kGroup * (kGroup - 1) / 2;
    const float4 v = out[t];
    const float got[] = {v.x, v.y, v.z, v.w};
    for (int i = 0; i < 4; ++i) check_equal(got[i], static_cast<float>(ranks * (2 * i + 6)), "sum");
  }
}

TEST(a_meeting_can_refuse) { check_fails("broken: no such fragment", fail_in_combine, 1, 32, 0); }
