// Tests when TMA copies arrive, and every misuse that the emulator refuses.
#include <cmath>
#include <cstdint>
#include <vector>

#include "check.h"
#include "cuda_src/arch/encode.h"
#include "cuda_src/arch/ptx_sm90.cuh"
#include "cuda_src/arch/shared_memory.cuh"

using namespace selftest;
using namespace convgrad::cuda;
using convgrad::DType;

namespace {

constexpr int kLine = 32, kLines = 8, kTile = kLine * kLines;  // floats
constexpr int kTileBytes = kTile * 4, kStages = 2, kReaders = 64;

// Many tiles of an array: tile i is filled with i + 1.
struct Tiles {
  explicit Tiles(int tiles) : data(static_cast<size_t>(tiles) * kTile / 4) {
    float* const numbers = reinterpret_cast<float*>(data.data());
    for (int i = 0; i < tiles * kTile; ++i) numbers[i] = static_cast<float>(i / kTile + 1);
    TensorArray array{DType::kF32, data.data(), 2, {kLine, tiles * kLines}, {0, kLine * 4}};
    check_equal(static_cast<int>(encode(TiledMap{array, {kLine, kLines}}, &map)), 0, "error of encode");
  }
  std::vector<float4> data;
  TensorMap map;
};

// A ring of two stages: thread 0 of the second warp-pair copies, 64 threads read.
template <bool kWaitFull, bool kWaitEmpty, bool kArrive>
__global__ void pipeline(const __grid_constant__ TensorMap map, int tiles, unsigned expected, float* sums) {
  float* stages = shared_memory<float>();
  uint64_t* full = reinterpret_cast<uint64_t*>(stages + kStages * kTile);
  uint64_t* empty = full + kStages;
  if (threadIdx.x == 0) {
    for (int s = 0; s < kStages; ++s) {
      mbarrier_init(&full[s], 1);
      mbarrier_init(&empty[s], kReaders);
    }
    mbarrier_init_fence();
  }
  __syncthreads();
  if (threadIdx.x == kReaders) {
    for (int i = 0; i < tiles; ++i) {
      const int s = i % kStages;
      if (kWaitEmpty) mbarrier_wait(&empty[s], i / kStages % 2 ^ 1);
      mbarrier_arrive_expect(&full[s], expected);
      tma_load<2>(stages + s * kTile, map, &full[s], {0, i * kLines});
    }
  } else if (threadIdx.x < kReaders) {
    float sum = 0;
    for (int i = 0; i < tiles; ++i) {
      const int s = i % kStages;
      if (kWaitFull) mbarrier_wait(&full[s], i / kStages % 2);
      for (int e = 0; e < kTile; e += kReaders) sum += stages[s * kTile + e + threadIdx.x];
      if (kArrive) mbarrier_arrive(&empty[s]);
    }
    if (!kWaitFull && threadIdx.x == 0)
      for (int i = 0; i < tiles; ++i) mbarrier_wait(&full[i % kStages], i / kStages % 2);
    sums[threadIdx.x] = sum;
  }
}

constexpr size_t kPipelineBytes = kStages * kTileBytes + 2 * kStages * sizeof(uint64_t);

template <typename Kernel>
int wrong_sums(Kernel kernel, int tiles) {
  const Tiles all(tiles);
  std::vector<float> sums(kReaders);
  run(kernel, 1, kReaders + 32, kPipelineBytes, all.map, tiles, unsigned{kTileBytes}, sums.data());
  int wrong = 0;
  for (const float sum : sums)
    wrong += sum != static_cast<float>(tiles * (tiles + 1) / 2 * (kTile / kReaders));
  return wrong;
}

}  // namespace

TEST(a_pipeline_of_tma_copies_is_right) {
  for (int seed = 1; seed <= 10; ++seed) {
    const WithSeed with(seed);
    check_equal(wrong_sums(pipeline<true, true, true>, 7), 0, "wrong sums");
  }
}

TEST(tma_copies_that_nobody_waits_for_give_nan) {
  int wrong = 0;
  for (int seed = 1; seed <= 3; ++seed) {
    const WithSeed with(seed);
    wrong += wrong_sums(pipeline<false, false, false>, kStages);
  }
  check(wrong > 0, "nothing shows the missing wait");
}

TEST(tma_copies_into_a_stage_in_use_show) {
  // Either a reader finds poison or the next tile, or the barrier runs ahead of readers, which then wait
  // forever.
  int found = 0;
  const Tiles all(6);
  for (int seed = 1; seed <= 5; ++seed) {
    const WithSeed with(seed);
    std::vector<float> sums(kReaders);
    const cudaError_t error = launch(pipeline<true, false, true>, 1, kReaders + 32, kPipelineBytes, all.map,
                                     6, unsigned{kTileBytes}, sums.data());
    bool right = error == cudaSuccess;
    for (const float sum : sums) right = right && sum == 21.0f * (kTile / kReaders);
    found += !right;
  }
  check(found >= 4, "a stage that is filled too early shows under too few seeds");
}

TEST(a_pipeline_that_stalls_is_an_error) {
  const Tiles all(6);
  std::vector<float> sums(kReaders);
  const auto fails = [&](const char* words, auto kernel, unsigned expected) {
    check_fails(words, kernel, 1, kReaders + 32, kPipelineBytes, all.map, 6, expected, sums.data());
  };
  fails("mbarrier.try_wait at byte 2064 for parity 0, which lacks 64 of 64 arrivals",
        pipeline<true, true, false>, kTileBytes);
  fails("which lacks 0 of 1 arrivals and 1024 bytes", pipeline<true, true, true>, 2 * kTileBytes);
}

// One copy with one mistake.
struct Wrong {
  int to = 0, barrier = kTileBytes, bytes = kTileBytes;  // places, and the expected bytes
  bool fence = true, wait = true, im2col = false;
  int at[3] = {}, offset = 0, copies = 1;
};

template <int kRank>
__global__ void one_copy(const __grid_constant__ TensorMap map, Wrong wrong) {
  unsigned char* shared = shared_memory<unsigned char>();
  uint64_t* barrier = reinterpret_cast<uint64_t*>(shared + kTileBytes);
  uint64_t* named = reinterpret_cast<uint64_t*>(shared + wrong.barrier);
  if (threadIdx.x != 0) return;
  mbarrier_init(barrier, 1);
  if (wrong.fence) mbarrier_init_fence();
  mbarrier_arrive_expect(barrier, static_cast<unsigned>(wrong.bytes));
  tma_prefetch(map);
  int at[kRank];
  for (int d = 0; d < kRank; ++d) at[d] = wrong.at[d];
  if (wrong.im2col) {
    if constexpr (kRank == 3) tma_load_im2col<3>(shared + wrong.to, map, named, at, {wrong.offset});
  } else {
    for (int i = 0; i < wrong.copies; ++i) tma_load<kRank>(shared + wrong.to, map, named, at);
  }
  for (int i = 0; wrong.wait && i < wrong.copies; ++i) mbarrier_wait(barrier, i);
}

TEST(too_few_expected_bytes_are_an_error) {
  const Tiles all(6);
  std::vector<float> sums(kReaders);
  check_fails("which lacks 0 of 1 arrivals and -1008 bytes", pipeline<true, true, true>, 1, kReaders + 32,
              kPipelineBytes, all.map, 6, 16u, sums.data());
  Wrong twice;
  twice.copies = 2;
  check_fails(
      "block (0,0,0): the mbarrier at byte 1024 has completed a phase without 1024 bytes of a copy that "
      "was issued in it: too few were expected",
      one_copy<2>, 1, 32, size_t{kTileBytes + 16}, all.map, twice);
}

TEST(misused_tma_copies_are_errors) {
  const Tiles all(1);
  constexpr size_t kBytes = kTileBytes + 16;
  const auto fails = [&](const std::string& words, auto change) {
    Wrong wrong;
    change(wrong);
    check_fails(words, one_copy<2>, 1, 32, kBytes, all.map, wrong);
  };
  run(one_copy<2>, 1, 32, kBytes, all.map, Wrong{});
  fails(
      "thread (0,0,0), cp.async.bulk.tensor: an address in shared memory that is no multiple of 128, but 16",
      [](Wrong& w) { w.to = 16; });
  fails("cp.async.bulk.tensor: 1024 bytes from byte 128 of the block's 1040 bytes",
        [](Wrong& w) { w.to = 128; });
  fails("cp.async.bulk.tensor: 1024 bytes from byte -128 of", [](Wrong& w) { w.to = -128; });
  fails("at byte 1032: no mbarrier has been initialised", [](Wrong& w) { w.barrier += 8; });
  fails("the mbarrier at byte 1024 has not been fenced", [](Wrong& w) { w.fence = false; });
  check_fails("3 coordinates for a tensor map of rank 2", one_copy<3>, 1, 32, kBytes, all.map, Wrong{});
  Wrong im2col;
  im2col.im2col = true;
  check_fails("cp.async.bulk.tensor.im2col: a tensor map of the other kind", one_copy<3>, 1, 32, kBytes,
              all.map, im2col);
  check_fails("prefetch.tensormap: what should be a tensor map has never been encoded", one_copy<2>, 1, 32,
              kBytes, TensorMap{}, Wrong{});
}

TEST(a_block_that_ends_before_its_copies_is_an_error) {
  const Tiles all(1);
  Wrong wrong;
  wrong.wait = false;
  check_fails("block (0,0,0) has ended, and 1 TMA copies are under way", one_copy<2>, 1, 32,
              size_t{kTileBytes + 16}, all.map, wrong);
}

// Two copies over earlier numbers; arrived[i] is the round in which the thread saw copy i.
static __global__ void watch_arrivals(const __grid_constant__ TensorMap map, int rounds, bool wait,
                                      float* before, int* arrived) {
  float* tiles = shared_memory<float>();
  uint64_t* barriers = reinterpret_cast<uint64_t*>(tiles + 2 * kTile);
  if (threadIdx.x == 0) {
    for (int i = 0; i < 2 * kTile; ++i) tiles[i] = 100;
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");  // TMA writes by another path
#endif
    for (int i = 0; i < 2; ++i) mbarrier_init(&barriers[i], 1);
    mbarrier_init_fence();
    for (int i = 0; i < 2; ++i) {
      mbarrier_arrive_expect(&barriers[i], kTileBytes);
      tma_load<2>(tiles + i * kTile, map, &barriers[i], {0, i * kLines});
    }
    for (int i = 0; i < 2 * kTile; ++i) before[i] = tiles[i];
  }
  for (int round = 0; round < rounds; ++round) {
    for (int i = 0; i < 2 && threadIdx.x == 0; ++i)
      if (arrived[i] < 0 && tiles[i * kTile] == static_cast<float>(i + 1)) arrived[i] = round;
    __syncthreads();
  }
  for (int i = 0; wait && i < 2; ++i) mbarrier_wait(&barriers[i], 0);
}

TEST(tma_copies_arrive_at_random_and_overtake_each_other) {
  const Tiles all(2);
  int first_ahead = 0, second_ahead = 0;
  for (int seed = 1; seed <= 20; ++seed) {
    const WithSeed with(seed);
    std::vector<float> before(2 * kTile);
    int arrived[2] = {-1, -1};
    run(watch_arrivals, 1, 32, size_t{2 * kTileBytes + 16}, all.map, 8, true, before.data(), &arrived[0]);
    for (const float number : before)
      check(std::isnan(number), "a number is there as soon as it is asked for");
    for (const int round : arrived) check(round >= 0, "a copy has not arrived while others had many turns");
    first_ahead += arrived[0] < arrived[1];
    second_ahead += arrived[1] < arrived[0];
  }
  check(first_ahead > 0 && second_ahead > 0, "copies always arrive in the same order");
}

TEST(tma_copies_that_arrive_and_that_nobody_waits_for_are_an_error) {
  const Tiles all(2);
  std::vector<float> before(2 * kTile);
  int arrived[2] = {-1, -1};
  check_fails(
      "block (0,0,0) has ended, and nobody has waited at the mbarrier at byte 2048 for the last copies",
      watch_arrivals, 1, 32, size_t{2 * kTileBytes + 16}, all.map, 8, false, before.data(), &arrived[0]);
}

TEST(im2col_copies_from_no_base_pixel_are_errors) {
  const Tiles all(4);
  TensorArray array{DType::kF32, all.data.data(), 3, {kLine, 8, 4}, {0, kLine * 4, 8 * kLine * 4}};
  TensorMap map;
  check_equal(static_cast<int>(encode(Im2colMap{array, {-1}, {2}, {2}, kLine, kLines}, &map)), 0, "encode");
  const auto with = [](int w, int offset) {
    Wrong wrong;
    wrong.im2col = true;
    wrong.at[1] = w;
    wrong.offset = offset;
    return wrong;
  };
  constexpr size_t kBytes = kTileBytes + 16;
  for (const int w : {-1, 1, 9}) run(one_copy<3>, 1, 32, kBytes, map, with(w, 65535));
  for (const int w : {-3, 0, 11})
    check_fails(
        "begins at " + std::to_string(w) + " on axis 0, where base pixels run from -1 to 9 in steps of 2",
        one_copy<3>, 1, 32, kBytes, map, with(w, 0));
  for (const int offset : {-1, 65536})
    check_fails("an offset of " + std::to_string(offset) + ", and rank 3 has room for 0 to 65535",
                one_copy<3>, 1, 32, kBytes, map, with(1, offset));
}
