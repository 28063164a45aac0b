#include "cuda_emulator/counters.h"

#include <atomic>
#include <mutex>

#include "launch_counters.h"

namespace cuda_emulator {

__thread Counters* launch_counters = nullptr;

namespace {

std::atomic<bool> counting{false};
std::mutex totals_mutex;
Counters totals;

GlobalTraffic& operator+=(GlobalTraffic& a, const GlobalTraffic& b) {
  a.instructions += b.instructions;
  a.bytes += b.bytes;
  a.sectors += b.sectors;
  return a;
}

SharedTraffic& operator+=(SharedTraffic& a, const SharedTraffic& b) {
  a.instructions += b.instructions;
  a.bytes += b.bytes;
  a.wavefronts += b.wavefronts;
  a.least_wavefronts += b.least_wavefronts;
  return a;
}

}  // namespace

Counters& Counters::operator+=(const Counters& other) {
  launches += other.launches;
  cp_async_global += other.cp_async_global;
  load_global += other.load_global;
  store_global += other.store_global;
  tma_global += other.tma_global;
  cp_async_shared += other.cp_async_shared;
  ldmatrix += other.ldmatrix;
  load_shared += other.load_shared;
  store_shared += other.store_shared;
  wgmma_shared += other.wgmma_shared;
  mma_bf16 += other.mma_bf16;
  mma_f16 += other.mma_f16;
  mma_tf32 += other.mma_tf32;
  mma_f64 += other.mma_f64;
  wgmma_bf16 += other.wgmma_bf16;
  wgmma_f16 += other.wgmma_f16;
  wgmma_tf32 += other.wgmma_tf32;
  return *this;
}

void start_counting() {
  const std::lock_guard<std::mutex> lock(totals_mutex);
  totals = {};
  counting = true;
}

void stop_counting() { counting = false; }

Counters counted() {
  const std::lock_guard<std::mutex> lock(totals_mutex);
  return totals;
}

CountedLaunch::CountedLaunch() { launch_counters = counting ? &counters_ : nullptr; }

CountedLaunch::~CountedLaunch() {
  if (!launch_counters) return;
  launch_counters = nullptr;
  counters_.launches = 1;
  const std::lock_guard<std::mutex> lock(totals_mutex);
  totals += counters_;
}

}  // namespace cuda_emulator
