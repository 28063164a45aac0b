#include "cuda_emulator/launch.h"

#include <cfenv>
#include <cstdint>
#include <cstdlib>
#include <mutex>
#include <numeric>
#include <unordered_map>

#include "block.h"
#include "cuda_emulator/builtin_variables.h"
#include "cuda_emulator/launches.h"
#include "error.h"
#include "launch_counters.h"

namespace cuda_emulator {
namespace {

// Compute capability 9.0.
constexpr size_t kDefaultSharedBytes = 48 << 10, kMaxSharedBytes = 227 << 10;
constexpr unsigned kMaxBlockXY = 1024, kMaxBlockZ = 64;
constexpr unsigned kMaxGridX = 0x7fffffff, kMaxGridYZ = 65535;

// What cudaFuncSetAttribute has allowed, for the whole process as in CUDA: a handler's initialize stage may
// run on another OS thread than its launches.
std::mutex attributes_mutex;
std::unordered_map<const void*, size_t>& allowed_shared_bytes() {
  static auto& map = *new std::unordered_map<const void*, size_t>;  // outlives every static's destructor
  return map;
}

cudaError_t check(const cudaLaunchConfig_t& config, const void* kernel) {
  if (!kernel) return cudaErrorInvalidDeviceFunction;
  const dim3 grid = config.gridDim, block = config.blockDim;
  const uint64_t threads = uint64_t{block.x} * block.y * block.z;
  if (grid.x == 0 || grid.y == 0 || grid.z == 0 || threads == 0) return cudaErrorInvalidConfiguration;
  if (grid.x > kMaxGridX || grid.y > kMaxGridYZ || grid.z > kMaxGridYZ) return cudaErrorInvalidConfiguration;
  if (block.x > kMaxBlockXY || block.y > kMaxBlockXY || block.z > kMaxBlockZ || threads > kMaxBlockThreads)
    return cudaErrorInvalidConfiguration;
  if (config.numAttrs != 0) return cudaErrorNotSupported;
  if (config.dynamicSmemBytes > kDefaultSharedBytes) {
    const std::lock_guard<std::mutex> lock(attributes_mutex);
    const auto found = allowed_shared_bytes().find(kernel);
    if (found == allowed_shared_bytes().end() || config.dynamicSmemBytes > found->second)
      return cudaErrorInvalidValue;
  }
  return cudaSuccess;
}

thread_local RecordedLaunches* recording = nullptr;

// Read at every launch, so that one process can compare two orders.
uint64_t seed() {
  const char* text = std::getenv("JAX_CONVGRAD_EMULATOR_SEED");
  return text ? std::strtoull(text, nullptr, 10) : 1;
}

// A caller may have subnormal numbers flushed to zero; a GPU does not flush them by default.
class DefaultFloatingPoint {
 public:
  DefaultFloatingPoint() {
    fegetenv(&callers_);
    fesetenv(FE_DFL_ENV);
  }
  ~DefaultFloatingPoint() { fesetenv(&callers_); }

 private:
  fenv_t callers_;
};

}  // namespace

RecordedLaunches::RecordedLaunches() { recording = this; }
RecordedLaunches::~RecordedLaunches() { recording = nullptr; }

cudaError_t launch(const cudaLaunchConfig_t* config, const void* kernel, void (*call)(const void*),
                   const void* context) {
  if (!config) return remember(cudaErrorInvalidValue);
  if (const cudaError_t error = check(*config, kernel)) return remember(error);
  if (recording) {
    recording->launches.push_back({kernel, config->gridDim, config->blockDim, config->dynamicSmemBytes});
    return cudaSuccess;
  }

  const DefaultFloatingPoint floating_point;
  const CountedLaunch counted;
  const dim3 grid = gridDim = config->gridDim;
  blockDim = config->blockDim;
  Block block(config->blockDim, config->dynamicSmemBytes, call, context);
  Random random(seed());

  // Steps whose size has no common factor with the count visit every block once.
  const uint64_t blocks = uint64_t{grid.x} * grid.y * grid.z;
  uint64_t step = random.bits() % blocks;
  while (std::gcd(step, blocks) != 1) ++step;
  uint64_t at = random.bits() % blocks;
  for (uint64_t turn = 0; turn < blocks; ++turn) {
    blockIdx = {static_cast<unsigned>(at % grid.x), static_cast<unsigned>(at / grid.x % grid.y),
                static_cast<unsigned>(at / grid.x / grid.y)};
    if (!block.run(random)) return remember_failure(block.error());
    at = (at + step) % blocks;
  }
  return cudaSuccess;
}

}  // namespace cuda_emulator

cudaError_t cudaFuncSetAttribute(const void* kernel, cudaFuncAttribute attribute, int value) {
  using namespace cuda_emulator;
  if (!kernel) return remember(cudaErrorInvalidDeviceFunction);
  switch (attribute) {
    case cudaFuncAttributeMaxDynamicSharedMemorySize: {
      if (value < 0 || static_cast<size_t>(value) > kMaxSharedBytes) return remember(cudaErrorInvalidValue);
      const std::lock_guard<std::mutex> lock(attributes_mutex);
      allowed_shared_bytes()[kernel] = static_cast<size_t>(value);
      return cudaSuccess;
    }
    case cudaFuncAttributePreferredSharedMemoryCarveout:  // advice about speed
      return value >= -1 && value <= 100 ? cudaSuccess : remember(cudaErrorInvalidValue);
  }
  return remember(cudaErrorInvalidValue);
}
