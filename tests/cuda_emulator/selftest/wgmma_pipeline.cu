// Tests a matrix product with Hopper's units: one thread copies tiles into a ring of stages, a warpgroup
// multiplies them. wgmma reads what TMA has written, and a stage that is released too early is detected.
#include <cmath>
#include <cstdint>
#include <vector>

#include "check.h"
#include "common_src/major.h"
#include "cuda_src/arch/encode.h"
#include "cuda_src/arch/ptx_sm90.cuh"
#include "cuda_src/arch/shared_memory.cuh"

using namespace selftest;
using namespace convgrad::cuda;
using convgrad::BFloat16;
using convgrad::DType;
using convgrad::Major;

namespace {

constexpr int kRows = 64, kColumns = 64, kSlice = 64, kSlices = 7, kStages = 2, kDepth = kSlice * kSlices;
constexpr int kTileBytes = 64 * kSlice * 2;
constexpr size_t kBytes = kStages * 2 * kTileBytes + 2 * kStages * sizeof(uint64_t);

enum class Way { kRight, kReleasedEarly, kWaitForOneTooMany, kStagesNotAwaited };

// Computes c[m][n] = sum of a[m][k] b[k][n]: lines of a run along the depth, lines of b along the columns.
template <Way kWay>
__global__ void product(const __grid_constant__ TensorMap a, const __grid_constant__ TensorMap b, float* c) {
  unsigned char* stages = shared_memory<unsigned char>();
  uint64_t* full = reinterpret_cast<uint64_t*>(stages + kStages * 2 * kTileBytes);
  uint64_t* empty = full + kStages;
  if (threadIdx.x == 0) {
    for (int s = 0; s < kStages; ++s) {
      mbarrier_init(&full[s], 1);
      mbarrier_init(&empty[s], 1);
    }
    mbarrier_init_fence();
  }
  __syncthreads();
  if (threadIdx.x >= 128) {
    for (int i = 0; threadIdx.x == 128 && i < kSlices; ++i) {
      const int s = i % kStages;
      mbarrier_wait(&empty[s], i / kStages % 2 ^ 1);
      mbarrier_arrive_expect(&full[s], 2 * kTileBytes);
      tma_load<2>(stages + 2 * s * kTileBytes, a, &full[s], {i * kSlice, 0});
      tma_load<2>(stages + (2 * s + 1) * kTileBytes, b, &full[s], {0, i * kSlice});
    }
    return;
  }
  float d[kColumns / 2] = {};
  for (int i = 0; i < kSlices; ++i) {
    const int s = i % kStages;
    if (kWay != Way::kStagesNotAwaited || i == kSlices - 1) mbarrier_wait(&full[s], i / kStages % 2);
    wgmma_fence();
    for (int k = 0; k < kSlice / 16; ++k)
      wgmma<BFloat16, kColumns, Major::kK, Major::kMN>(
          d, wgmma_operand(stages + 2 * s * kTileBytes + 32 * k, 16, 1024),
          wgmma_operand(stages + (2 * s + 1) * kTileBytes + 2048 * k, kTileBytes, 1024));
    wgmma_commit();
    if (kWay == Way::kReleasedEarly) {
      if (threadIdx.x == 0) mbarrier_arrive(&empty[s]);
      continue;
    }
    // All groups except the latest have ended, so the stage before may be filled again.
    wgmma_wait<kWay == Way::kWaitForOneTooMany ? 2 : 1>(d);
    if (threadIdx.x == 0 && i > 0) mbarrier_arrive(&empty[(i - 1) % kStages]);
  }
  wgmma_wait<0>(d);
  for (int i = 0; i < kColumns / 2; ++i) {
    const int lane = static_cast<int>(threadIdx.x) % 32;
    const int row = static_cast<int>(threadIdx.x) / 32 * 16 + lane / 4 + i / 2 % 2 * 8;
    c[row * kColumns + i / 4 * 8 + lane % 4 * 2 + i % 2] = d[i];
  }
}

// Returns whether the launch succeeds and every element is right.
template <Way kWay>
bool right() {
  const auto a = [](int m, int k) { return (m * 5 + k * 3) % 17 - 8; };
  const auto b = [](int k, int n) { return (k * 7 + n * 4) % 13 - 6; };
  std::vector<uint4> a_data(kRows * kDepth / 8), b_data(kDepth * kColumns / 8);
  const auto number = [](int v) { return convgrad::narrow<BFloat16>(static_cast<float>(v)); };
  for (int k = 0; k < kDepth; ++k)
    for (int i = 0; i < 64; ++i) {
      reinterpret_cast<BFloat16*>(a_data.data())[i * kDepth + k] = number(a(i, k));
      reinterpret_cast<BFloat16*>(b_data.data())[k * kColumns + i] = number(b(k, i));
    }
  TensorMap a_map, b_map;
  const TensorArray a_array{DType::kBF16, a_data.data(), 2, {kDepth, kRows}, {0, kDepth * 2}};
  const TensorArray b_array{DType::kBF16, b_data.data(), 2, {kColumns, kDepth}, {0, kColumns * 2}};
  check_equal(static_cast<int>(encode(TiledMap{a_array, {kSlice, kRows}}, &a_map)), 0, "error of encode");
  check_equal(static_cast<int>(encode(TiledMap{b_array, {kColumns, kSlice}}, &b_map)), 0, "error of encode");
  std::vector<float> c(kRows * kColumns);
  if (launch(product<kWay>, 2, 160, kBytes, a_map, b_map, c.data()) != cudaSuccess) return false;
  for (int m = 0; m < kRows; ++m)
    for (int n = 0; n < kColumns; ++n) {
      int expected = 0;
      for (int k = 0; k < kDepth; ++k) expected += a(m, k) * b(k, n);
      if (c[m * kColumns + n] != static_cast<float>(expected)) return false;
    }
  return true;
}

template <Way kWay>
int times_right() {
  constexpr auto kAttribute = cudaFuncAttributeMaxDynamicSharedMemorySize;
  check_equal(static_cast<int>(cudaFuncSetAttribute(product<kWay>, kAttribute, int{kBytes})), 0, "attribute");
  int times = 0;
  for (int seed = 1; seed <= 5; ++seed) {
    const WithSeed with(seed);
    times += right<kWay>();
  }
  return times;
}

}  // namespace

TEST(a_pipeline_of_tma_and_wgmma_is_right) { check_equal(times_right<Way::kRight>(), 5, "right products"); }
TEST(a_stage_that_wgmma_still_reads_shows) {
  check_equal(times_right<Way::kReleasedEarly>(), 0, "right products from stages released before the wait");
  check_equal(times_right<Way::kWaitForOneTooMany>(), 0, "right products with too short a wait");
  check_equal(times_right<Way::kStagesNotAwaited>(), 0, "right products from stages that were not full");
}
