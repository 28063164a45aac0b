#include "cuda_emulator/wgmma.h"

#include <string>
#include <utility>

#include "address.h"
#include "block.h"
#include "condition.h"
#include "swizzle.h"

namespace cuda_emulator {
namespace {

Warpgroup& my_warpgroup(const char* instruction) {
  Block& block = *Block::current();
  Warpgroup* mine = block.warpgroup();
  if (!mine) fail(block.where_running() + ", " + instruction + ": its warpgroup has not 128 threads");
  return *mine;
}
unsigned my_rank() { return Block::current()->running_thread() % kWarpgroupThreads; }

void fail_if(const char* instruction, std::string&& error) {
  if (!error.empty()) fail(Block::current()->where_running() + ", " + instruction + ": " + std::move(error));
}

class AllIssued final : public Condition {
 public:
  AllIssued(const Warpgroup& warpgroup, size_t end) : warpgroup_(warpgroup), end_(end) {}
  bool holds() override { return warpgroup_.missing(end_) == 0; }
  std::string name() const override {
    return "wgmma.wait_group for an instruction that " + std::to_string(warpgroup_.missing(end_)) +
           " threads of the warpgroup have not issued";
  }

 private:
  const Warpgroup& warpgroup_;
  size_t end_;
};

}  // namespace

uint64_t wgmma_operand(const void* shared, int leading_bytes, int stride_bytes) {
  constexpr int kFieldEnd = 1 << 18;
  check_shared_range("wgmma operand", shared, kChunkBytes, kChunkBytes);
  for (const int bytes : {leading_bytes, stride_bytes})
    if (bytes < 0 || bytes >= kFieldEnd || bytes % static_cast<int>(kChunkBytes) != 0)
      fail(Block::current()->where_running() + ", wgmma operand: " + std::to_string(bytes) +
           " is no multiple of 16 below 2^18");
  const auto field = [](size_t bytes, int bit) { return uint64_t{bytes / kChunkBytes} << bit; };
  return field(shared_offset(shared), 0) | field(static_cast<size_t>(leading_bytes), 16) |
         field(static_cast<size_t>(stride_bytes), 32) | uint64_t{1} << 62;
}

void wgmma_fence() { my_warpgroup("wgmma.fence").fence(my_rank()); }
void wgmma_commit() { my_warpgroup("wgmma.commit_group").commit(my_rank()); }

void wgmma_wait(unsigned pending_groups, float* d) {
  constexpr const char* kName = "wgmma.wait_group";
  Warpgroup& warpgroup = my_warpgroup(kName);
  const size_t end = warpgroup.covered_by_wait(my_rank(), pending_groups);
  AllIssued condition(warpgroup, end);
  Block::current()->wait_until(condition);
  fail_if(kName, warpgroup.finish_wait(my_rank(), end, pending_groups == 0 ? d : nullptr));
}

void wgmma(const Wgmma& what, const uint32_t* a_registers, float* d) {
  constexpr const char* kName = "wgmma.mma_async";
  fail_if(kName, my_warpgroup(kName).issue(my_rank(), what, a_registers, d));
}

}  // namespace cuda_emulator
