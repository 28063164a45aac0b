// Tests that every thread of every block runs once, knows its place, and computes as a GPU does by default.
#include <thread>
#include <vector>

#include "check.h"

#if defined(__SSE__)
#include <xmmintrin.h>
#endif

using namespace selftest;

static __global__ void count(int* runs, dim3 grid, dim3 block) {
  if (gridDim.x != grid.x || gridDim.y != grid.y || gridDim.z != grid.z) return;
  if (blockDim.x != block.x || blockDim.y != block.y || blockDim.z != block.z) return;
  const unsigned b = (blockIdx.z * gridDim.y + blockIdx.y) * gridDim.x + blockIdx.x;
  const unsigned t = (threadIdx.z * blockDim.y + threadIdx.y) * blockDim.x + threadIdx.x;
  ++runs[b * blockDim.x * blockDim.y * blockDim.z + t];
}

TEST(every_thread_runs_once) {
  const dim3 grids[] = {{1, 1, 1}, {7, 1, 1}, {3, 4, 5}, {1, 9, 2}};
  const dim3 blocks[] = {{1, 1, 1}, {33, 1, 1}, {5, 3, 2}, {1024, 1, 1}, {2, 2, 64}};
  for (const dim3 grid : grids)
    for (const dim3 block : blocks) {
      std::vector<int> runs(grid.x * grid.y * grid.z * block.x * block.y * block.z);
      run(count, grid, block, 0, runs.data(), grid, block);
      for (const int n : runs) check_equal(n, 1, "runs of a thread");
    }
}

static __global__ void last_block(unsigned* out) { *out = blockIdx.x; }

TEST(block_order_depends_on_the_seed) {
  unsigned first = 0;
  int different = 0;
  for (int seed = 0; seed < 8; ++seed) {
    const WithSeed with(seed);
    unsigned last = 0;
    run(last_block, 1000, 1, 0, &last);
    if (seed == 0) first = last;
    different += last != first;
  }
  check(different > 0, "the same block came last under eight seeds");
}

static __global__ void second_rows(unsigned* out) {
  const unsigned t = (threadIdx.z * blockDim.y + threadIdx.y) * blockDim.x + threadIdx.x;
  out[t] = __ballot_sync(0xffffffffu, threadIdx.y == 1);
}

TEST(warps_are_cut_along_x_then_y_then_z) {
  std::vector<unsigned> out(64);
  run(second_rows, 1, dim3(8, 2, 4), 0, out.data());
  for (const unsigned rows : out) check_equal(rows, 0xff00ff00u, "lanes in rows with y = 1");
}

static __global__ void multiply(const float* in, float* out) { *out = in[0] * in[1]; }

TEST(subnormal_results_are_kept) {
  const float in[] = {0x1p-100f, 0x1p-40f};
  float out = 0;
  run(multiply, 1, 1, 0, static_cast<const float*>(in), &out);
  check_equal(out, 0x1p-140f, "product");
}

#if defined(__SSE__)
TEST(a_caller_that_flushes_subnormals_changes_nothing) {
  const float in[] = {0x1p-100f, 0x1p-40f};
  float out = 0;
  const unsigned before = _mm_getcsr(), flushing = before | 0x8040;  // FTZ and DAZ
  _mm_setcsr(flushing);
  const cudaError_t error = launch(multiply, 1, 1, 0, static_cast<const float*>(in), &out);
  const unsigned after = _mm_getcsr();
  _mm_setcsr(before);
  check_equal(static_cast<int>(error), static_cast<int>(cudaSuccess), "error of the launch");
  check_equal(out, 0x1p-140f, "product");
  check_equal(after & 0x8040, flushing & 0x8040, "the caller's control bits");
}
#endif

static __global__ void neighbours(int* out, int salt) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  int value = salt + static_cast<int>(blockIdx.x);
  for (int i = 0; i < 20; ++i) {
    value += __shfl_sync(0xffffffffu, lane, (lane + i) % 32);
    __syncthreads();
  }
  out[blockIdx.x * blockDim.x + threadIdx.x] = value;
}

TEST(launches_on_several_os_threads_do_not_meet) {
  constexpr int kThreads = 4, kBlocks = 25, n = 96;
  std::vector<std::vector<int>> out(kThreads, std::vector<int>(kBlocks * n));
  std::vector<cudaError_t> errors(kThreads, cudaSuccess);
  std::vector<std::thread> pool;
  for (int i = 0; i < kThreads; ++i)
    pool.emplace_back([&, i] { errors[i] = launch(neighbours, kBlocks, n, 0, out[i].data(), 1000 * i); });
  for (std::thread& thread : pool) thread.join();
  for (int i = 0; i < kThreads; ++i) {
    check_equal(static_cast<int>(errors[i]), static_cast<int>(cudaSuccess), "error of a launch");
    for (int b = 0; b < kBlocks; ++b)
      for (int t = 0; t < n; ++t) {
        int expected = 1000 * i + b;
        for (int j = 0; j < 20; ++j) expected += (t % 32 + j) % 32;
        check_equal(out[i][b * n + t], expected, "sum over neighbours");
      }
  }
}
