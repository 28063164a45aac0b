// Tests what happens to wgmma's sums and operands before the wait, and every misuse that the emulator
// refuses.
#include <cmath>
#include <cstdint>
#include <vector>

#include "check.h"
#include "common_src/major.h"
#include "cuda_src/arch/ptx_sm90.cuh"
#include "cuda_src/arch/shared_memory.cuh"

using namespace selftest;
using namespace convgrad::cuda;
using convgrad::BFloat16;
using convgrad::Major;

namespace {

constexpr int kColumns = 64, kSums = kColumns / 2, kTile = 64 * 64;  // numbers of a tile
constexpr size_t kBytes = 2 * kTile * 2;                             // a and b

// All elements of a and b are 1, so 16 of depth add 16 to a sum.
__device__ void fill_with_ones() {
  uint16_t* shared = shared_memory<uint16_t>();
  for (int i = static_cast<int>(threadIdx.x); i < 2 * kTile; i += 128) shared[i] = 0x3f80;
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
  asm volatile("fence.proxy.async.shared::cta;" ::: "memory");  // wgmma reads by another path
#endif
}

__device__ void multiply(float (&d)[kSums], int a_offset = 0, int b_offset = 2 * kTile, int stride = 1024) {
  unsigned char* shared = shared_memory<unsigned char>();
  wgmma<BFloat16, kColumns, Major::kK, Major::kK>(d, wgmma_operand(shared + a_offset, 16, stride),
                                                  wgmma_operand(shared + b_offset, 16, stride));
}

enum class Way {
  kRight,
  kSumsBeforeWait,
  kWaitForOlderGroup,
  kOperandsChanged,
  kOperandsLate,
  kNoFence,
  kNoFenceAgain,
  kUntouchedSums,
  kSumsChanged,
  kNoCommit,
  kNoWait,
  kSumsNotNamed,
  kOtherInstruction,
  kOtherSums,
  kThreadMissing,
};

// Returns a thread's sums of all 64 columns after the mistake.
template <Way kWay>
__global__ void multiply_once(float* out) {
  const bool odd = threadIdx.x == 77;
  fill_with_ones();
  if (kWay == Way::kOperandsLate) {
    if (threadIdx.x < 64) shared_memory<uint16_t>()[threadIdx.x] = 0x4000;
  }
  __syncthreads();
  float d[kSums], other[kSums];
  for (int i = 0; i < kSums; ++i) d[i] = other[i] = 1;
  if (kWay == Way::kThreadMissing && odd) return;
  if (kWay != Way::kNoFence) wgmma_fence();
  if (kWay == Way::kOtherSums && odd)
    multiply(other);
  else
    multiply(d);
  if (kWay == Way::kOtherSums) multiply(d);
  if (kWay == Way::kOtherInstruction) multiply(d, odd ? 32 : 0);
  if (kWay == Way::kSumsChanged && odd) d[5] = 0;
  if (kWay != Way::kNoCommit) wgmma_commit();
  if (kWay == Way::kOperandsChanged && threadIdx.x < 64) shared_memory<uint16_t>()[threadIdx.x] = 0x4000;
  if (kWay == Way::kOperandsLate && threadIdx.x < 64) shared_memory<uint16_t>()[threadIdx.x] = 0x3f80;
  if (kWay == Way::kWaitForOlderGroup) wgmma_wait<1>(d);
  if (kWay == Way::kSumsNotNamed) wgmma_wait<0>(other);
  if (kWay == Way::kSumsBeforeWait || kWay == Way::kWaitForOlderGroup || kWay == Way::kSumsNotNamed)
    for (int i = 0; i < kSums; ++i) out[threadIdx.x * kSums + i] = d[i];
  if (kWay == Way::kNoWait || kWay == Way::kSumsNotNamed) return;
  wgmma_wait<0>(d);
  if (kWay == Way::kNoFenceAgain || kWay == Way::kUntouchedSums) {
    if (kWay == Way::kNoFenceAgain && odd) d[7] = 0;
    multiply(d);
    wgmma_commit();
    wgmma_wait<0>(d);
  }
  if (kWay != Way::kSumsBeforeWait && kWay != Way::kWaitForOlderGroup)
    for (int i = 0; i < kSums; ++i) out[threadIdx.x * kSums + i] = d[i];
}

template <Way kWay>
std::vector<float> sums() {
  std::vector<float> out(128 * kSums, -1);
  run(multiply_once<kWay>, 1, 128, kBytes, out.data());
  return out;
}

template <Way kWay>
void check_wgmma_fails(const char* words, unsigned threads = 128) {
  std::vector<float> out(256 * kSums);
  check_fails(words, multiply_once<kWay>, 1, threads, kBytes, out.data());
}

int nans(const std::vector<float>& numbers) {
  int count = 0;
  for (const float number : numbers) count += std::isnan(number);
  return count;
}

}  // namespace

TEST(sums_are_poison_until_the_wait) {
  check(sums<Way::kRight>() == std::vector<float>(128 * kSums, 17), "a sum is wrong");
  check(sums<Way::kUntouchedSums>() == std::vector<float>(128 * kSums, 33), "a sum is wrong");
  check_equal(nans(sums<Way::kSumsBeforeWait>()), 128 * kSums, "sums that are poison before the wait");
  check_equal(nans(sums<Way::kWaitForOlderGroup>()), 128 * kSums, "sums that are poison in the latest group");
}

TEST(operands_that_change_between_issue_and_wait_give_nan) {
  // 64 numbers, the first line of a: the 16 that an instruction reads are all in row 0.
  check_equal(nans(sums<Way::kOperandsChanged>()), kColumns, "sums of a row that was overwritten too early");
  check_equal(nans(sums<Way::kOperandsLate>()), kColumns, "sums of a row that came too late");
}

TEST(misused_wgmma_is_an_error) {
  check_wgmma_fails<Way::kNoFence>("wgmma.mma_async: no wgmma.fence has come before it");
  check_wgmma_fails<Way::kNoFenceAgain>(
      "thread (77,0,0), wgmma.mma_async: its sums have been changed, and no wgmma.fence has come since");
  check_wgmma_fails<Way::kSumsChanged>(
      "thread (77,0,0), wgmma.wait_group: sums have been changed while a wgmma");
  check_wgmma_fails<Way::kNoCommit>("has ended without waiting for 1 of its wgmma");
  check_wgmma_fails<Way::kNoWait>("has ended without waiting for 1 of its wgmma");
  check_wgmma_fails<Way::kOtherInstruction>("other threads of the warpgroup issue a different instruction");
  check_wgmma_fails<Way::kOtherSums>("other threads of the warpgroup add to other sums");
  check_wgmma_fails<Way::kSumsNotNamed>("has ended without naming the sums of its wgmma in a wait");
  sums<Way::kRight>();  // nothing is left over from the launches that failed
}

TEST(wgmma_without_the_whole_warpgroup_is_an_error) {
  check_wgmma_fails<Way::kThreadMissing>(
      "127 at wgmma.wait_group for an instruction that 1 threads of the warpgroup have not issued");
  check_wgmma_fails<Way::kRight>("its warpgroup has not 128 threads", 96);
  check_wgmma_fails<Way::kRight>("its warpgroup has not 128 threads", 160);
}

static __global__ void multiply_at(int a, int b, int stride, uint64_t flipped, int leading) {
  fill_with_ones();
  __syncthreads();
  float d[kSums] = {};
  unsigned char* shared = shared_memory<unsigned char>();
  const uint64_t described = wgmma_operand(shared + a, leading, stride) ^ flipped;
  wgmma_fence();
  wgmma<BFloat16, kColumns, Major::kK, Major::kK>(d, described, wgmma_operand(shared + b, 16, stride));
  wgmma_commit();
  wgmma_wait<0>(d);
}

TEST(misplaced_operands_are_errors) {
  const auto fails = [](const std::string& words, int a, int b, int stride = 1024, uint64_t flipped = 0,
                        int leading = 16) {
    check_fails(words, multiply_at, 1, 128, kBytes, a, b, stride, flipped, leading);
  };
  constexpr int b = 2 * kTile;
  run(multiply_at, 1, 128, kBytes, 96, b + 96, 1024, uint64_t{0}, 16);
  fails("wgmma operand: an address in shared memory that is no multiple of 16, but 8 beyond", 8, b);
  fails("wgmma operand: 16 bytes from byte 16384 of the block's 16384 bytes", int{kBytes}, b);
  fails("wgmma operand: 8 is no multiple of 16 below 2^18", 0, b, 1024, 0, 8);
  fails("wgmma operand: 262144 is no multiple of 16 below 2^18", 0, b, 1 << 18);
  fails("b: an operand that reaches to byte 17408 of the block's 16384 bytes", 0, b + 1024);
  fails("a: an operand that runs over the end of a line", 112, b);
  fails("a: an operand that begins in no first line of a swizzle's eight", 128, b);
  fails("a: an operand whose strides are no multiples of 1024", 0, b, 512);
  fails("a: a descriptor that is none of the 128-byte swizzle with base offset 0", 0, b, 1024,
        uint64_t{1} << 62);
  fails("a: a descriptor that is none of the 128-byte swizzle with base offset 0", 0, b, 1024,
        uint64_t{1} << 49);
}

// setmaxnreg.
template <int kRaise, int kLower>
__global__ void share_registers(unsigned missing, bool twice) {
  if (threadIdx.x == missing) return;
  if (threadIdx.x < 256)
    raise_registers<kRaise>();
  else
    lower_registers<kLower>();
  if (twice && threadIdx.x >= 256) lower_registers<kLower + 8>();
}

TEST(misused_register_budgets_are_errors) {
  run(share_registers<232, 40>, 2, 384, 0, 1000u, false);
  check_fails("the block's warpgroups ask for 66560 registers, and a multiprocessor has 65536",
              share_registers<240, 40>, 1, 384, 0, 1000u, false);
  check_fails("setmaxnreg.inc: thread 5 of the warpgroup takes no part", share_registers<232, 40>, 1, 384, 0,
              133u, false);
  check_fails("setmaxnreg.dec: from 40 to 48 registers is the other direction", share_registers<232, 40>, 1,
              384, 0, 1000u, true);
}
