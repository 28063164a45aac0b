// Tests matrix products c[m,n] = sum over k of a[m,k] * b[k,n]: a kernel with tiles in shared memory, and one
// with a thread per element and no barrier.
#include <chrono>
#include <cstdio>
#include <vector>

#include "check.h"
#include "cuda_src/arch/shared_memory.cuh"

using namespace selftest;

constexpr int kTile = 64, kDepth = 16, kSide = 16, kPerThread = kTile / kSide;

// 16x16 threads compute a 64x64 tile, 4x4 elements each. a's tile is stored transposed, so that both operands
// of the inner loop are float4 reads.
static __global__ void __launch_bounds__(kSide* kSide)
    tiled(const float* __restrict__ a, const float* __restrict__ b, float* __restrict__ c, int size) {
  float* a_tile = convgrad::cuda::shared_memory<float>();  // [kDepth][kTile]
  float* b_tile = a_tile + kDepth * kTile;                 // [kDepth][kTile]
  const int tx = static_cast<int>(threadIdx.x), ty = static_cast<int>(threadIdx.y), thread = ty * kSide + tx;
  const int m0 = static_cast<int>(blockIdx.y) * kTile, n0 = static_cast<int>(blockIdx.x) * kTile;
  float sum[kPerThread][kPerThread] = {};
  for (int k0 = 0; k0 < size; k0 += kDepth) {
    for (int i = thread; i < kTile * kDepth; i += kSide * kSide) {
      a_tile[i % kDepth * kTile + i / kDepth] = a[(m0 + i / kDepth) * size + k0 + i % kDepth];
      b_tile[i] = b[(k0 + i / kTile) * size + n0 + i % kTile];
    }
    __syncthreads();
    for (int k = 0; k < kDepth; ++k) {
      const float4 u = *reinterpret_cast<const float4*>(&a_tile[k * kTile + ty * kPerThread]);
      const float4 v = *reinterpret_cast<const float4*>(&b_tile[k * kTile + tx * kPerThread]);
      const float us[] = {u.x, u.y, u.z, u.w}, vs[] = {v.x, v.y, v.z, v.w};
      for (int i = 0; i < kPerThread; ++i)
        for (int j = 0; j < kPerThread; ++j) sum[i][j] = fmaf(us[i], vs[j], sum[i][j]);
    }
    __syncthreads();
  }
  for (int i = 0; i < kPerThread; ++i)
    *reinterpret_cast<float4*>(&c[(m0 + ty * kPerThread + i) * size + n0 + tx * kPerThread]) =
        make_float4(sum[i][0], sum[i][1], sum[i][2], sum[i][3]);
}

static __global__ void reference(const float* __restrict__ a, const float* __restrict__ b,
                                 float* __restrict__ c, int size) {
  const int n = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
  const int m = static_cast<int>(blockIdx.y * blockDim.y + threadIdx.y);
  float sum = 0;
  for (int k = 0; k < size; ++k) sum = fmaf(a[m * size + k], b[k * size + n], sum);
  c[m * size + n] = sum;
}

// One output per thread, a filter of 3 taps: little work for each thread.
static __global__ void filter3(const float* __restrict__ x, float* __restrict__ y) {
  const unsigned i = blockIdx.x * blockDim.x + threadIdx.x;
  y[i] = fmaf(x[i], 0.25f, fmaf(x[i + 1], 0.5f, x[i + 2] * 0.25f));
}

struct Operands {
  explicit Operands(int size) : a(size * size), b(size * size), c(size * size, -1.0f) {
    for (size_t i = 0; i < a.size(); ++i) {
      a[i] = static_cast<float>(static_cast<int>(i * 7 % 11) - 5);
      b[i] = static_cast<float>(static_cast<int>(i * 5 % 13) - 6);
    }
  }
  std::vector<float> a, b, c;
};

using Product = void (*)(const float*, const float*, float*, int);
constexpr size_t kTileBytes = 2 * kDepth * kTile * sizeof(float);

static void multiply(Product kernel, unsigned tile, size_t shared_bytes, Operands& o, int size) {
  run(kernel, dim3(size / tile, size / tile), dim3(kSide, kSide), shared_bytes,
      static_cast<const float*>(o.a.data()), static_cast<const float*>(o.b.data()), o.c.data(), size);
}

static void check_product(Product kernel, unsigned tile, size_t shared_bytes) {
  constexpr int kSize = 128;
  for (int seed = 1; seed <= 3; ++seed) {
    const WithSeed with(seed);
    Operands o(kSize);
    multiply(kernel, tile, shared_bytes, o, kSize);
    // Small whole numbers, for which every order of summation is exact.
    for (int m = 0; m < kSize; ++m)
      for (int n = 0; n < kSize; ++n) {
        int expected = 0;
        for (int k = 0; k < kSize; ++k)
          expected += static_cast<int>(o.a[m * kSize + k]) * static_cast<int>(o.b[k * kSize + n]);
        check_equal(o.c[m * kSize + n], static_cast<float>(expected), "element of the product");
      }
  }
}

TEST(tiled_product_is_exact) { check_product(tiled, kTile, kTileBytes); }
TEST(direct_product_is_exact) { check_product(reference, kSide, 0); }

template <typename Work>
static double seconds(Work work) {
  const auto start = std::chrono::steady_clock::now();
  work();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

DEMONSTRATION(speed) {
  constexpr int kSize = 512;
  Operands o(kSize);
  const double macs = static_cast<double>(kSize) * kSize * kSize;
  std::printf("tiled product:  %6.0f million multiply-adds/s\n",
              macs / 1e6 / seconds([&] { multiply(tiled, kTile, kTileBytes, o, kSize); }));
  std::printf("reference product: %6.0f million multiply-adds/s\n",
              macs / 1e6 / seconds([&] { multiply(reference, kSide, 0, o, kSize); }));
  const unsigned blocks = 1 << 14, n = 256;
  std::vector<float> x(blocks * n + 2, 1.0f), y(blocks * n);
  const double filter =
      seconds([&] { run(filter3, blocks, n, 0, static_cast<const float*>(x.data()), y.data()); });
  std::printf("3-tap filter:   %6.0f million multiply-adds/s, %.1f ns a thread\n", 3e-6 * blocks * n / filter,
              filter * 1e9 / (blocks * n));
}
