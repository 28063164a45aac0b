#include "cuda_emulator/register_budget.h"

#include <string>

#include "block.h"
#include "cuda_emulator/meeting.h"

namespace cuda_emulator {
namespace {

constexpr unsigned kRegisterFile = 64 << 10;

bool whole_warpgroup(Party& warpgroup) {
  for (unsigned rank = 0; rank < kWarpgroupThreads; ++rank)
    if (!warpgroup.has(rank)) {
      warpgroup.fail("thread " + std::to_string(rank) + " of the warpgroup takes no part");
      return false;
    }
  return true;
}

void set_registers(Party& warpgroup, bool raise) {
  if (!whole_warpgroup(warpgroup)) return;
  const unsigned registers = warpgroup.in<unsigned>(0);
  for (unsigned rank = 1; rank < kWarpgroupThreads; ++rank)
    if (warpgroup.in<unsigned>(rank) != registers)
      return warpgroup.fail("the threads of a warpgroup ask for different numbers");
  unsigned& mine = warpgroup.out<unsigned>(0);
  if (mine != 0 && (raise ? registers < mine : registers > mine))
    return warpgroup.fail("from " + std::to_string(mine) + " to " + std::to_string(registers) +
                          " registers is the other direction");
  mine = registers;
  const unsigned total = Block::current()->total_registers();
  if (total > kRegisterFile)
    warpgroup.fail("the block's warpgroups ask for " + std::to_string(total) +
                   " registers, and a multiprocessor has " + std::to_string(kRegisterFile));
}

void change(const char* name, int registers, Combine combine) {
  const unsigned in = static_cast<unsigned>(registers);
  meet({name, kWarpgroup, kAllLanes, combine}, &in, &Block::current()->registers());
}

}  // namespace

void raise_registers(int registers) {
  change("setmaxnreg.inc", registers, [](Party& warpgroup) { set_registers(warpgroup, true); });
}
void lower_registers(int registers) {
  change("setmaxnreg.dec", registers, [](Party& warpgroup) { set_registers(warpgroup, false); });
}

}  // namespace cuda_emulator
