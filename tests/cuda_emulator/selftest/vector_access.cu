// Tests that loads and stores of 4, 8 and 16 bytes move the right bytes, and that misplaced ones are refused.
#include <cstdint>
#include <cstring>
#include <vector>

#include "check.h"
#include "cuda_src/arch/shared_memory.cuh"
#include "cuda_src/arch/vector_access.cuh"

using namespace selftest;
using namespace convgrad::cuda;

// Copies through shared memory, in the opposite order.
template <typename V>
__global__ void turn_around(const V* in, V* out) {
  V* shared = shared_memory<V>();
  store_shared(&shared[threadIdx.x], load_global(&in[threadIdx.x]));
  __syncthreads();
  store_global(&out[threadIdx.x], load_shared(&shared[blockDim.x - 1 - threadIdx.x]));
}

template <typename V>
static void check_turn_around() {
  constexpr unsigned kThreads = 50;
  std::vector<V> in(kThreads), out(kThreads);
  unsigned char* bytes = reinterpret_cast<unsigned char*>(in.data());
  for (size_t i = 0; i < kThreads * sizeof(V); ++i) bytes[i] = static_cast<unsigned char>(i % 101);
  run(turn_around<V>, 1, kThreads, kThreads * sizeof(V), static_cast<const V*>(in.data()), out.data());
  for (unsigned t = 0; t < kThreads; ++t)
    check(std::memcmp(&out[t], &in[kThreads - 1 - t], sizeof(V)) == 0, "another thread's vector came");
}

TEST(vectors_of_every_type_arrive) {
  check_turn_around<uint32_t>();
  check_turn_around<float>();
  check_turn_around<uint2>();
  check_turn_around<float2>();
  check_turn_around<double>();
  check_turn_around<uint4>();
  check_turn_around<float4>();
  check_turn_around<double2>();
}

enum class Where { kLoadGlobal, kStoreGlobal, kLoadShared, kStoreShared };

static __global__ void access_at(Where where, unsigned char* global, int offset) {
  float4* in_global = reinterpret_cast<float4*>(global + offset);
  float4* in_shared = reinterpret_cast<float4*>(shared_memory<unsigned char>() + offset);
  const float4 zero = make_float4(0, 0, 0, 0);
  if (where == Where::kLoadGlobal) store_global(reinterpret_cast<float4*>(global), load_global(in_global));
  if (where == Where::kStoreGlobal) store_global(in_global, zero);
  if (where == Where::kLoadShared) store_global(reinterpret_cast<float4*>(global), load_shared(in_shared));
  if (where == Where::kStoreShared) store_shared(in_shared, zero);
}

TEST(misplaced_vectors_are_errors) {
  std::vector<float4> aligned(2);
  unsigned char* global = reinterpret_cast<unsigned char*>(aligned.data());
  const auto fails = [&](Where where, int offset, const char* words) {
    run(access_at, 1, 1, 32, where, global, 16);
    check_fails(words, access_at, 1, 1, 32, where, global, offset);
  };
  fails(Where::kLoadGlobal, 8, "load_global: an address in global memory that is no multiple of 16, but 8");
  fails(Where::kStoreGlobal, 4, "store_global: an address in global memory that is no multiple of 16, but 4");
  fails(Where::kLoadShared, 8, "load_shared: an address in shared memory that is no multiple of 16, but 8");
  fails(Where::kStoreShared, 4, "store_shared: an address in shared memory that is no multiple of 16, but 4");
  fails(Where::kLoadShared, 32,
        "load_shared: 16 bytes from byte 32 of the block's 32 bytes of shared memory");
  fails(Where::kStoreShared, -16, "store_shared: 16 bytes from byte -16 of the block's 32 bytes");
}
