#include "cpu_src/machine.h"

#include <chrono>
#include <cstdint>

#include "cpu_src/isa.h"

namespace convgrad::cpu {
namespace {

template <int kBytes>
struct Vector {
  typedef float type __attribute__((vector_size(kBytes)));
};

// A chain waits for its own last step, so the number of chains is the number of operations in flight: at
// least a multiply-add's latency times the number of units (4 * 2 on x86, 4 * 4 on the widest Arm cores), and
// with the two constants no more than there are registers.
template <int kBytes, int kChains>
inline __attribute__((always_inline)) float run_chains(int64_t rounds) {
  using V = typename Vector<kBytes>::type;
  const V half = V{} + 0.5f, one = V{} + 1.0f;
  V sums[kChains];
#pragma GCC unroll 32
  for (int chain = 0; chain < kChains; ++chain) sums[chain] = V{} + static_cast<float>(chain);
  for (int64_t round = 0; round < rounds; ++round) {
#pragma GCC unroll 32
    for (int chain = 0; chain < kChains; ++chain) sums[chain] = sums[chain] * half + one;
  }
  V total = {};
#pragma GCC unroll 32
  for (int chain = 0; chain < kChains; ++chain) total += sums[chain];
  return total[0];
}

struct Loop {
  float (*run)(int64_t rounds);
  double flops_per_round;
};

template <int kBytes, int kChains>
constexpr double flops_per_round() {
  return 2.0 * kChains * kBytes / sizeof(float);
}

#if defined(__x86_64__)

__attribute__((target("avx512f"))) float run_avx512(int64_t rounds) { return run_chains<64, 24>(rounds); }
__attribute__((target("avx2,fma"))) float run_avx2(int64_t rounds) { return run_chains<32, 12>(rounds); }
float run_sse(int64_t rounds) { return run_chains<16, 12>(rounds); }

Loop widest() {
  const Isa isa = supported_isas().back();
  if (isa >= Isa::kAvx512) return {run_avx512, flops_per_round<64, 24>()};
  if (isa == Isa::kAvx2) return {run_avx2, flops_per_round<32, 12>()};
  return {run_sse, flops_per_round<16, 12>()};
}

#else

float run_plain(int64_t rounds) { return run_chains<16, 24>(rounds); }

Loop widest() { return {run_plain, flops_per_round<16, 24>()}; }

#endif

}  // namespace

double peak_flops(double seconds) {
  using Clock = std::chrono::steady_clock;
  constexpr int64_t kRounds = 10000;
  const Loop loop = widest();
  volatile float keep = loop.run(kRounds);  // lets the clock rise and the wide units wake
  int64_t runs = 0;
  const Clock::time_point start = Clock::now();
  double elapsed = 0;
  do {
    keep = loop.run(kRounds);
    ++runs;
    elapsed = std::chrono::duration<double>(Clock::now() - start).count();
  } while (elapsed < seconds);
  (void)keep;
  return static_cast<double>(runs) * kRounds * loop.flops_per_round / elapsed;
}

}  // namespace convgrad::cpu
