// Tests that shared memory is poison until it is written, in every block.
#include <cmath>
#include <vector>

#include "check.h"
#include "cuda_src/arch/shared_memory.cuh"

using namespace selftest;

template <typename T>
__global__ void read_then_write(T* out) {
  T* shared = convgrad::cuda::shared_memory<T>();
  out[blockIdx.x * blockDim.x + threadIdx.x] = shared[threadIdx.x];
  shared[threadIdx.x] = T(1);
}

template <typename T>
static std::vector<T> unwritten() {
  std::vector<T> out(4 * 32, T(5));
  run(read_then_write<T>, 4, 32, 32 * sizeof(T), out.data());
  return out;
}

TEST(unwritten_shared_memory_is_nan_in_every_block) {
  for (const float v : unwritten<float>()) check(std::isnan(v), "a float that nobody wrote is a number");
  for (const double v : unwritten<double>()) check(std::isnan(v), "a double that nobody wrote is a number");
  for (const unsigned short v : unwritten<unsigned short>()) {
    check((v & 0x7fff) > 0x7c00, "a half that nobody wrote is a number");
    check((v & 0x7fff) > 0x7f80, "a bfloat16 that nobody wrote is a number");
  }
}

static __global__ void store_through_float4(int offset) {
  float* shared = convgrad::cuda::shared_memory<float>() + offset;
  *reinterpret_cast<float4*>(shared) = make_float4(1, 2, 3, 4);
}

TEST(an_aligned_float4_that_fits_is_well) { run(store_through_float4, 1, 1, 8 * sizeof(float), 4); }

// A demonstration for a sanitizer.
DEMONSTRATION(misaligned_float4) { run(store_through_float4, 1, 1, 8 * sizeof(float), 2); }
DEMONSTRATION(float4_past_the_end) { run(store_through_float4, 1, 1, 7 * sizeof(float), 4); }

static __global__ void store_past_an_array(float* array, int at) { array[at] = 1; }

DEMONSTRATION(store_past_global_memory) {
  std::vector<float> array(100);
  run(store_past_an_array, 1, 1, 0, array.data(), 100);
}
