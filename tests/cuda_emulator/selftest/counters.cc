// Compares the counters with patterns counted by hand. The counters belong to the emulator, not to CUDA, so
// this file is for the host compiler alone.
#include "cuda_emulator/counters.h"

#include <string>
#include <thread>
#include <vector>

#include "check.h"
#include "cuda_src/arch/ptx.cuh"
#include "cuda_src/arch/shared_memory.cuh"
#include "cuda_src/arch/vector_access.cuh"

using namespace selftest;
using namespace convgrad::cuda;
using cuda_emulator::Counters;
using cuda_emulator::GlobalTraffic;
using cuda_emulator::SharedTraffic;

namespace {

template <typename... Arguments>
Counters counted_run(Arguments... arguments) {
  cuda_emulator::start_counting();
  run(arguments...);
  cuda_emulator::stop_counting();
  return cuda_emulator::counted();
}

void check_traffic(const GlobalTraffic& got, uint64_t instructions, uint64_t bytes, uint64_t sectors,
                   const std::string& what) {
  check_equal(got.instructions, instructions, what + ", instructions");
  check_equal(got.bytes, bytes, what + ", bytes");
  check_equal(got.sectors, sectors, what + ", sectors");
}

void check_traffic(const SharedTraffic& got, uint64_t instructions, uint64_t bytes, uint64_t wavefronts,
                   uint64_t excess, const std::string& what) {
  check_equal(got.instructions, instructions, what + ", instructions");
  check_equal(got.bytes, bytes, what + ", bytes");
  check_equal(got.wavefronts, wavefronts, what + ", wavefronts");
  check_equal(got.excess(), excess, what + ", excess wavefronts");
}

// Arrays large enough for every pattern here.
struct Memory {
  Memory() : storage(1024) {}
  unsigned char* bytes() { return reinterpret_cast<unsigned char*>(storage.data()); }
  struct alignas(128) Line {
    unsigned char bytes[128];
  };
  std::vector<Line> storage;
};

// Thread t copies from t * from_pitch + start to t * to_pitch.
template <int kBytes>
__global__ void copy(const unsigned char* in, unsigned start, unsigned from_pitch, unsigned to_pitch,
                     unsigned valid) {
  const unsigned t = threadIdx.x;
  cp_async<kBytes>(shared_memory<unsigned char>() + t * to_pitch, in + start + t * from_pitch, t < valid);
  cp_async_commit();
  cp_async_wait<0>();
}

template <int kBytes>
Counters copied(unsigned threads, unsigned start, unsigned from_pitch, unsigned to_pitch,
                unsigned valid = ~0u) {
  Memory memory;
  return counted_run(copy<kBytes>, 1, threads, threads * to_pitch,
                     static_cast<const unsigned char*>(memory.bytes()), start, from_pitch, to_pitch, valid);
}

}  // namespace

TEST(sectors_of_async_copies_are_counted) {
  check_traffic(copied<16>(32, 0, 16, 16).cp_async_global, 1, 512, 16, "16 bytes a lane, side by side");
  check_traffic(copied<16>(64, 0, 16, 16).cp_async_global, 2, 1024, 32, "two warps");
  check_traffic(copied<16>(32, 0, 64, 16).cp_async_global, 1, 512, 32, "16 bytes out of every 64");
  check_traffic(copied<8>(32, 0, 8, 8).cp_async_global, 1, 256, 8, "8 bytes a lane, side by side");
  check_traffic(copied<4>(32, 0, 4, 4).cp_async_global, 1, 128, 4, "4 bytes a lane, side by side");
  check_traffic(copied<4>(32, 16, 4, 4).cp_async_global, 1, 128, 5, "half a sector too late");
  check_traffic(copied<4>(32, 0, 0, 4).cp_async_global, 1, 128, 1, "all from one place");
  check_traffic(copied<16>(32, 0, 16, 16, 9).cp_async_global, 1, 144, 5, "9 of 32 lanes valid");
  check_traffic(copied<16>(32, 0, 16, 16, 0).cp_async_global, 1, 0, 0, "no lane valid");
}

TEST(bank_conflicts_of_async_copies_are_counted) {
  check_traffic(copied<16>(32, 0, 16, 16).cp_async_shared, 1, 512, 4, 0, "rows side by side");
  check_traffic(copied<16>(32, 0, 16, 128).cp_async_shared, 1, 512, 32, 28, "a pitch of 128 bytes");
  check_traffic(copied<16>(32, 0, 16, 64).cp_async_shared, 1, 512, 16, 12, "a pitch of 64 bytes");
  check_traffic(copied<16>(32, 0, 16, 144).cp_async_shared, 1, 512, 4, 0, "a pitch of 144 bytes");
  check_traffic(copied<8>(32, 0, 8, 16).cp_async_shared, 1, 256, 4, 2, "8 of 16 bytes");
  check_traffic(copied<4>(32, 0, 4, 128).cp_async_shared, 1, 128, 32, 31, "all in one bank");
  check_traffic(copied<16>(32, 0, 16, 16, 0).cp_async_shared, 1, 512, 4, 0, "zeros are written as well");
}

// Lane l reads row l % 16, the 16 bytes of column l / 16, of rows of `pitch` bytes; with a swizzle, the
// column numbers of a row are xored with the row's number.
static __global__ void load_rows(unsigned pitch, bool swizzled, bool two) {
  unsigned char* shared = shared_memory<unsigned char>();
  const unsigned lane = threadIdx.x, row = lane % 16, column = lane / 16 ^ (swizzled ? row % 8 : 0);
  uint32_t d4[4], d2[2];
  if (two)
    ldmatrix_x2(d2, shared + row * pitch + 16 * column);
  else
    ldmatrix_x4_trans(d4, shared + row * pitch + 16 * column);
}

TEST(bank_conflicts_of_ldmatrix_are_counted) {
  const auto loaded = [](unsigned pitch, bool swizzled, bool two = false) {
    return counted_run(load_rows, 1, 32, 16 * pitch + 32, pitch, swizzled, two).ldmatrix;
  };
  check_traffic(loaded(128, false), 1, 512, 32, 28, "rows of 128 bytes");
  check_traffic(loaded(128, true), 1, 512, 4, 0, "swizzled rows of 128 bytes");
  check_traffic(loaded(144, false), 1, 512, 4, 0, "padded rows");
  check_traffic(loaded(64, false), 1, 512, 16, 12, "rows of 64 bytes");
  check_traffic(loaded(32, false), 1, 512, 8, 4, "rows of 32 bytes");
  check_traffic(loaded(128, false, true), 1, 256, 16, 14, "two matrices");
  check_traffic(loaded(0, false), 1, 512, 4, 0, "one row for all: the same words");
}

template <typename V>
__global__ void read_shared(unsigned stride) {
  V* shared = shared_memory<V>();
  load_shared(&shared[threadIdx.x * stride]);
}

template <typename V>
__global__ void write_shared(unsigned stride) {
  V* shared = shared_memory<V>();
  store_shared(&shared[threadIdx.x * stride], V{});
}

template <typename V>
static void check_shared(unsigned stride, uint64_t wavefronts, uint64_t excess, const std::string& what) {
  const size_t bytes = (31 * stride + 1) * sizeof(V);
  check_traffic(counted_run(read_shared<V>, 1, 32, bytes, stride).load_shared, 1, 32 * sizeof(V), wavefronts,
                excess, what + ", loaded");
  check_traffic(counted_run(write_shared<V>, 1, 32, bytes, stride).store_shared, 1, 32 * sizeof(V),
                wavefronts, excess, what + ", stored");
}

TEST(bank_conflicts_of_vector_accesses_are_counted) {
  check_shared<float>(1, 1, 0, "neighbours");
  check_shared<float>(0, 1, 0, "all at one word");
  check_shared<float>(2, 2, 1, "every second word");
  check_shared<float>(32, 32, 31, "every 32nd word");
  check_shared<float>(33, 1, 0, "every 33rd word");
  check_shared<double>(1, 2, 0, "neighbouring doubles");
  check_shared<float2>(2, 4, 2, "every second pair");
  check_shared<uint4>(1, 4, 0, "neighbouring quadruples");
  check_shared<float4>(2, 8, 4, "every second quadruple");
  check_shared<float4>(8, 32, 28, "every eighth quadruple");
}

// Three loads per lane in a loop, and one store of the sum.
static __global__ void sum_columns(const float* in, float* out, unsigned pitch) {
  float sum = 0;
  for (unsigned row = 0; row < 3; ++row) sum += load_global(&in[row * pitch + threadIdx.x]);
  store_global(&out[threadIdx.x], sum);
}

TEST(sectors_of_loads_and_stores_are_counted) {
  Memory in, out;
  const auto counters = [&](unsigned threads, unsigned pitch) {
    return counted_run(sum_columns, 2, threads, 0, reinterpret_cast<const float*>(in.bytes()),
                       reinterpret_cast<float*>(out.bytes()), pitch);
  };
  // Two blocks of each.
  check_traffic(counters(96, 96).load_global, 18, 2304, 72, "aligned rows");
  check_traffic(counters(96, 96).store_global, 6, 768, 24, "stores");
  check_traffic(counters(32, 33).load_global, 6, 768, 2 * (4 + 5 + 5),
                "rows that begin at 0, 132 and 264 bytes");
  check_traffic(counters(20, 32).load_global, 6, 480, 2 * 9, "20 of 32 lanes");
}

// Thread 0 makes one more access before the barrier; after it all are in step again.
static __global__ void one_more_then_meet(const float* in) {
  load_global(&in[threadIdx.x]);
  if (threadIdx.x == 0) load_global(&in[1000]);
  __syncwarp();
  load_global(&in[threadIdx.x]);
}

TEST(a_meeting_brings_lanes_back_in_step) {
  Memory in;
  for (int seed = 1; seed <= 3; ++seed) {
    const WithSeed with(seed);
    const Counters counters =
        counted_run(one_more_then_meet, 1, 32, 0, reinterpret_cast<const float*>(in.bytes()));
    check_traffic(counters.load_global, 3, 65 * 4, 4 + 1 + 4, "loads around a meeting");
  }
}

static __global__ void multiply_each(int bf16, int f16, int tf32, int f64) {
  float d[4] = {};
  double d64[2] = {};
  const uint32_t a[4] = {}, b[2] = {};
  for (int i = 0; i < bf16; ++i) mma_bf16_16x8x16(d, a, b);
  for (int i = 0; i < f16; ++i) mma_f16_16x8x16(d, a, b);
  for (int i = 0; i < tf32; ++i) mma_tf32_16x8x8(d, a, b);
  for (int i = 0; i < f64; ++i) mma_f64_8x8x4(d64, 0.0, 0.0);
}

TEST(multiply_adds_are_counted_by_kind) {
  const Counters counters = counted_run(multiply_each, 3, 64, 0, 1, 2, 3, 4);
  const uint64_t warps = 6;
  check_equal(counters.mma_bf16, warps * 2048, "multiply-adds in bf16");
  check_equal(counters.mma_f16, warps * 2 * 2048, "multiply-adds in f16");
  check_equal(counters.mma_tf32, warps * 3 * 1024, "multiply-adds in tf32");
  check_equal(counters.mma_f64, warps * 4 * 256, "multiply-adds in f64");
}

TEST(counting_is_off_until_it_starts) {
  const uint64_t before = cuda_emulator::counted().launches;  // those of other tests
  run(multiply_each, 1, 32, 0, 1, 1, 1, 1);
  check_equal(cuda_emulator::counted().launches, before, "launches before counting");
  counted_run(multiply_each, 1, 32, 0, 1, 0, 0, 0);
  run(multiply_each, 1, 32, 0, 1, 1, 1, 1);
  check_equal(cuda_emulator::counted().launches, 1u, "launches that were counted");
  check_equal(cuda_emulator::counted().mma_bf16, 2048u, "multiply-adds that were counted");
  check_equal(counted_run(multiply_each, 1, 32, 0, 0, 0, 0, 1).mma_bf16, 0u,
              "multiply-adds after a new start");
}

TEST(launches_on_several_os_threads_add_up) {
  constexpr int kThreads = 4, kLaunches = 10;
  cuda_emulator::start_counting();
  std::vector<std::thread> pool;
  for (int i = 0; i < kThreads; ++i)
    pool.emplace_back([] {
      for (int j = 0; j < kLaunches; ++j) launch(multiply_each, 2, 32, 0, 1, 0, 0, 0);
    });
  for (std::thread& thread : pool) thread.join();
  cuda_emulator::stop_counting();
  check_equal(cuda_emulator::counted().launches, uint64_t{kThreads * kLaunches}, "launches");
  check_equal(cuda_emulator::counted().mma_bf16, uint64_t{kThreads * kLaunches * 2 * 2048}, "multiply-adds");
}
