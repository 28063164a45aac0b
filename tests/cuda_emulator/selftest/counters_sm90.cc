// Compares the counters of TMA and wgmma with numbers computed by hand.
#include <cstdint>
#include <vector>

#include "check.h"
#include "common_src/major.h"
#include "cuda_emulator/counters.h"
#include "cuda_src/arch/encode.h"
#include "cuda_src/arch/ptx_sm90.cuh"
#include "cuda_src/arch/shared_memory.cuh"

using namespace selftest;
using namespace convgrad::cuda;
using convgrad::BFloat16;
using convgrad::DType;
using convgrad::Float16;
using convgrad::Major;
using cuda_emulator::Counters;

namespace {

template <typename... Arguments>
Counters counted_run(Arguments... arguments) {
  cuda_emulator::start_counting();
  run(arguments...);
  cuda_emulator::stop_counting();
  return cuda_emulator::counted();
}

constexpr int kLines = 16;

void load(const TensorMap map, int c, int w, bool im2col) {
  unsigned char* shared = shared_memory<unsigned char>();
  uint64_t* barrier = reinterpret_cast<uint64_t*>(shared + kLines * 128);
  if (threadIdx.x != 0) return;
  mbarrier_init(barrier, 1);
  mbarrier_init_fence();
  mbarrier_arrive_expect(barrier, kLines * 128);
  if (im2col)
    tma_load_im2col<3>(shared, map, barrier, {c, w, 0}, {1});
  else
    tma_load<2>(shared, map, barrier, {c, w});
  mbarrier_wait(barrier, 0);
}

void check_tma(const TensorMap& map, int c, int w, bool im2col, uint64_t bytes, uint64_t sectors,
               const std::string& what) {
  const Counters counters = counted_run(load, 1, 32, size_t{kLines * 128 + 8}, map, c, w, im2col);
  check_equal(counters.tma_global.instructions, uint64_t{1}, what + ", instructions");
  check_equal(counters.tma_global.bytes, bytes, what + ", bytes");
  check_equal(counters.tma_global.sectors, sectors, what + ", sectors");
}

struct alignas(128) Line {
  unsigned char bytes[128];
};

template <typename Stored, int kColumns, Major kMajor>
void multiply(int times) {
  unsigned char* shared = shared_memory<unsigned char>();
  for (unsigned i = threadIdx.x; i < (64 + kColumns) * 64; i += 128)
    reinterpret_cast<uint16_t*>(shared)[i] = 0;
  __syncthreads();
  float d[kColumns / 2] = {};
  wgmma_fence();
  for (int i = 0; i < times; ++i)
    wgmma<Stored, kColumns, kMajor, kMajor>(d, wgmma_operand(shared, 8192, 1024),
                                            wgmma_operand(shared + 8192, 8192, 1024));
  wgmma_commit();
  wgmma_wait<0>(d);
}

void multiply_tf32() {
  unsigned char* shared = shared_memory<unsigned char>();
  float d[32] = {};
  const uint32_t a[4] = {};
  wgmma_fence();
  wgmma_tf32<64>(d, a, wgmma_operand(shared, 16, 1024));
  wgmma_commit();
  wgmma_wait<0>(d);
}

}  // namespace

TEST(sectors_of_tma_copies_are_counted) {
  std::vector<Line> data(40);
  TensorMap map;
  // Lines of 72 numbers, 160 bytes apart: every line begins at a sector.
  const TensorArray array{DType::kBF16, data.data(), 2, {72, 20}, {0, 160}};
  check_equal(static_cast<int>(encode(TiledMap{array, {64, kLines}}, &map)), 0, "error of encode");
  check_tma(map, 0, 0, false, 16 * 128, 16 * 4, "a tile inside");
  check_tma(map, 8, 0, false, 16 * 128, 16 * 5, "half a sector on");
  check_tma(map, 16, 10, false, 10 * 112, 10 * 4, "10 lines are there, and 56 numbers of each");
  check_tma(map, -60, 0, false, 16 * 8, 16, "4 numbers of a line are there");
  check_tma(map, 80, 0, false, 0, 0, "nothing is there");
  const TensorArray pixels{DType::kBF16, data.data(), 3, {64, 6, 2}, {0, 128, 768}};
  check_equal(static_cast<int>(encode(Im2colMap{pixels, {-2}, {0}, {1}, 64, kLines}, &map)), 0, "encode");
  // 8 base pixels per image, each read one pixel further: 6 of each image are inside.
  check_tma(map, 0, -2, true, 12 * 128, 12 * 4, "two images of windows");
}

TEST(work_of_wgmma_is_counted) {
  const auto bf16 = counted_run(multiply<BFloat16, 64, Major::kK>, 2, 128, size_t{16384}, 3);
  check_equal(bf16.wgmma_bf16, uint64_t{2 * 3 * 64 * 64 * 16}, "multiply-adds in bf16");
  check_equal(bf16.wgmma_f16 + bf16.wgmma_tf32 + bf16.mma_bf16, uint64_t{0}, "others");
  const auto f16 = counted_run(multiply<Float16, 128, Major::kMN>, 1, 128, size_t{24576}, 1);
  check_equal(f16.wgmma_f16, uint64_t{64 * 128 * 16}, "multiply-adds in f16");
  const auto tf32 = counted_run(multiply_tf32, 1, 128, size_t{8192});
  check_equal(tf32.wgmma_tf32, uint64_t{64 * 64 * 8}, "multiply-adds in tf32");
  check_equal(tf32.wgmma_shared.bytes, uint64_t{64 * 32}, "bytes of b alone");
}

// 32 bytes of each row; a wavefront has 128.
TEST(wgmma_reads_swizzled_operands_without_bank_conflicts) {
  const auto check_reads = [](const Counters& counters, uint64_t rows, const std::string& what) {
    check_equal(counters.wgmma_shared.instructions, uint64_t{2}, what + ", operands");
    check_equal(counters.wgmma_shared.bytes, rows * 32, what + ", bytes");
    check_equal(counters.wgmma_shared.wavefronts, rows / 4, what + ", wavefronts");
    check_equal(counters.wgmma_shared.excess(), uint64_t{0}, what + ", excess");
  };
  check_reads(counted_run(multiply<BFloat16, 64, Major::kK>, 1, 128, size_t{16384}, 1), 128, "depth");
  check_reads(counted_run(multiply<BFloat16, 128, Major::kMN>, 1, 128, size_t{24576}, 1), 192, "rows");
}
