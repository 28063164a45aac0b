// Tests that launches which a GPU of compute capability 9.0 would refuse are refused with the same error.
#include <vector>

#include "check.h"
#include "cuda_src/arch/shared_memory.cuh"

using namespace selftest;

static __global__ void touch(unsigned bytes) {
  if (bytes) convgrad::cuda::shared_memory<unsigned char>()[bytes - 1] = 1;
}

// Separate kernels, because an attribute persists.
template <int kOne>
__global__ void touch_another(unsigned bytes) {
  if (bytes) convgrad::cuda::shared_memory<unsigned char>()[bytes - 1] = 1;
}

static void check_error(cudaError_t error, cudaError_t expected, const char* what) {
  check_equal(static_cast<int>(error), static_cast<int>(expected), what);
}

TEST(block_sizes_have_limits) {
  check_error(launch(touch, 1, 1024, 0, 0u), cudaSuccess, "1024 threads");
  check_error(launch(touch, 1, 1025, 0, 0u), cudaErrorInvalidConfiguration, "1025 threads");
  check_error(launch(touch, 1, dim3(32, 33), 0, 0u), cudaErrorInvalidConfiguration, "32 by 33 threads");
  check_error(launch(touch, 1, dim3(1, 1, 64), 0, 0u), cudaSuccess, "64 threads along z");
  check_error(launch(touch, 1, dim3(1, 1, 65), 0, 0u), cudaErrorInvalidConfiguration, "65 threads along z");
  check_error(launch(touch, 1, dim3(1u << 31, 1u << 31, 4), 0, 0u), cudaErrorInvalidConfiguration,
              "a product that would wrap to 0");
  check_error(launch(touch, 1, 0, 0, 0u), cudaErrorInvalidConfiguration, "no threads");
}

TEST(grid_sizes_have_limits) {
  check_error(launch(touch, 0, 1, 0, 0u), cudaErrorInvalidConfiguration, "no blocks");
  check_error(launch(touch, dim3(1, 0), 1, 0, 0u), cudaErrorInvalidConfiguration, "no blocks along y");
  check_error(launch(touch, dim3(65536, 1), 1, 0, 0u), cudaSuccess, "65536 blocks along x");
  check_error(launch(touch, dim3(1, 65535), 1, 0, 0u), cudaSuccess, "65535 blocks along y");
  check_error(launch(touch, dim3(1, 65536), 1, 0, 0u), cudaErrorInvalidConfiguration, "65536 blocks along y");
  check_error(launch(touch, dim3(1, 1, 65536), 1, 0, 0u), cudaErrorInvalidConfiguration, "65536 along z");
  check_error(launch(touch, dim3(1u << 31), 1, 0, 0u), cudaErrorInvalidConfiguration, "2^31 along x");
}

TEST(shared_memory_has_limits) {
  constexpr unsigned kDefault = 48 << 10, kMax = 227 << 10;
  const auto attribute = cudaFuncAttributeMaxDynamicSharedMemorySize;
  check_error(launch(touch, 1, 1, kDefault, kDefault), cudaSuccess, "48 KiB");
  check_error(launch(touch, 1, 1, kDefault + 1, 0u), cudaErrorInvalidValue, "more, without the attribute");
  check_error(cudaFuncSetAttribute(touch, attribute, kMax + 1), cudaErrorInvalidValue,
              "attribute past 227 KiB");
  check_error(cudaFuncSetAttribute(touch, attribute, kMax), cudaSuccess, "attribute of 227 KiB");
  check_error(launch(touch, 1, 1, kMax, kMax), cudaSuccess, "227 KiB with the attribute");
  check_error(launch(touch, 1, 1, kMax + 1, 0u), cudaErrorInvalidValue, "more than 227 KiB");
  check_error(cudaFuncSetAttribute(touch_another<1>, attribute, 60 << 10), cudaSuccess,
              "attribute of 60 KiB");
  check_error(launch(touch_another<1>, 1, 1, 61 << 10, 0u), cudaErrorInvalidValue, "more than the attribute");
  check_error(launch(touch_another<2>, 1, 1, 60 << 10, 0u), cudaErrorInvalidValue,
              "another kernel's attribute");
  cudaGetLastError();
}

TEST(copies_and_fills_arrive) {
  std::vector<int> from = {1, 2, 3}, to(3);
  check_error(cudaMemcpyAsync(to.data(), from.data(), 12, cudaMemcpyDeviceToDevice, nullptr), cudaSuccess,
              "copy");
  check(to == from, "the copy differs");
  check_error(cudaMemsetAsync(to.data(), 0, 8, nullptr), cudaSuccess, "fill");
  check(to == std::vector<int>({0, 0, 3}), "the fill went wrong");
  check_error(cudaMemsetAsync(nullptr, 0, 8, nullptr), cudaErrorInvalidValue, "fill of nothing");
  cudaGetLastError();
}
