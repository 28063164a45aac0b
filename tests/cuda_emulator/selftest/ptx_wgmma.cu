// Compares wgmma with plain loops. The place of an operand's element in shared memory is computed here from
// the element: its group of eight lines, its line, and its chunk, which is permuted within the line.
#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>

#include "check.h"
#include "common_src/major.h"
#include "cuda_src/arch/ptx_sm90.cuh"
#include "cuda_src/arch/shared_memory.cuh"

using namespace selftest;
using namespace convgrad::cuda;
using convgrad::BFloat16;
using convgrad::Float16;
using convgrad::Major;

namespace {

constexpr int kRows = 64, kTileDepth = 64, kTiles = 2;  // two tiles of the depth, and four instructions each

// The layout of an operand 64 deep with kCount rows: lines of 128 bytes in groups of eight, which follow each
// other or, if kSpread, have others in between.
template <Major kMajor, int kCount, bool kSpread>
struct Layout;
template <int kCount, bool kSpread>
struct Layout<Major::kK, kCount, kSpread> {
  static constexpr int kLeading = 16, kStride = kSpread ? 3072 : 1024,
                       kStep = 32;  // the next 16 of the depth
  static constexpr int kBytes = kCount / 8 * kStride;
  static int byte(int row, int k) {
    return row / 8 * kStride + row % 8 * 128 + ((k / 8) ^ (row % 8)) * 16 + k % 8 * 2;
  }
};
template <int kCount, bool kSpread>
struct Layout<Major::kMN, kCount, kSpread> {
  static constexpr int kLeading = kSpread ? 1024 : 8192, kStride = kSpread ? kCount / 64 * 1024 : 1024;
  static constexpr int kStep = 2 * kStride, kBytes = kCount * 128;
  static int byte(int row, int k) {
    return row / 64 * kLeading + k / 8 * kStride + k % 8 * 128 + ((row % 64 / 8) ^ (k % 8)) * 16 +
           row % 8 * 2;
  }
};

// A small whole number.
template <typename Stored>
uint16_t bits_of(int v) {
  return convgrad::narrow<Stored>(static_cast<float>(v)).bits;
}

int a_at(int m, int k) { return (m * 5 + k * 3) % 17 - 8; }
int b_at(int k, int n) { return (k * 7 + n * 4) % 13 - 6; }
int c_at(int m, int n) { return (m * 3 + n) % 101; }

// Copies the tiles' bytes, made by the host, to shared memory.
__device__ void fill_shared(const uint4* image, int bytes) {
  uint4* shared = shared_memory<uint4>();
  for (int i = static_cast<int>(threadIdx.x); i < bytes / 16; i += static_cast<int>(blockDim.x))
    shared[i] = image[i];
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
  asm volatile("fence.proxy.async.shared::cta;" ::: "memory");  // wgmma reads by another path
#endif
  __syncthreads();
}

template <typename StoredType, int kN, Major kMajorA, Major kMajorB, bool kSpread>
struct Case {
  using Stored = StoredType;
  static constexpr int kColumns = kN, kSums = kN / 2;
  static constexpr Major kA = kMajorA, kB = kMajorB;
  using A = Layout<kA, kRows, kSpread>;
  using B = Layout<kB, kColumns, kSpread>;
  static constexpr int kTileBytes = A::kBytes + B::kBytes;  // a's 64 rows, then b's
};

template <typename Case>
__device__ void multiply_tile(float (&d)[Case::kSums], int tile) {
  using A = typename Case::A;
  using B = typename Case::B;
  const unsigned char* a = shared_memory<unsigned char>() + tile * Case::kTileBytes;
  const unsigned char* b = a + A::kBytes;
  for (int k = 0; k < kTileDepth / 16; ++k)
    wgmma<typename Case::Stored, Case::kColumns, Case::kA, Case::kB>(
        d, wgmma_operand(a + k * A::kStep, A::kLeading, A::kStride),
        wgmma_operand(b + k * B::kStep, B::kLeading, B::kStride));
}

// The sums of a thread: row 16 w + g + 8 h and column 8 j + 2 t + e belong to d[4 j + 2 h + e].
int thread_of(int m, int n) { return m / 16 * 32 + m % 8 * 4 + n % 8 / 2; }
int coord_of(int m, int n) { return n / 8 * 4 + m % 16 / 8 * 2 + n % 2; }

enum class Groups { kOne, kOnePerTile, kOneAtATime };

template <typename Case, Groups kGroups>
__global__ void multiply(const uint4* image, int bytes, const float* c, float* out) {
  fill_shared(image, bytes);
  float d[Case::kSums];
  for (int i = 0; i < Case::kSums; ++i) d[i] = c[threadIdx.x * Case::kSums + i];
  wgmma_fence();
  for (int tile = 0; tile < kTiles; ++tile) {
    multiply_tile<Case>(d, tile);
    if (kGroups != Groups::kOne || tile == kTiles - 1) wgmma_commit();
    if (kGroups == Groups::kOneAtATime) wgmma_wait<0>(d);
    if (kGroups == Groups::kOnePerTile) wgmma_wait<1>(d);
  }
  wgmma_wait<0>(d);
  for (int i = 0; i < Case::kSums; ++i) out[threadIdx.x * Case::kSums + i] = d[i];
}

template <typename Case>
std::vector<uint4> tiles_image() {
  std::vector<uint4> image(kTiles * Case::kTileBytes / 16);
  const auto store = [&](int byte, int v) {
    const uint16_t bits = bits_of<typename Case::Stored>(v);
    std::memcpy(reinterpret_cast<unsigned char*>(image.data()) + byte, &bits, 2);
  };
  for (int k = 0; k < kTiles * kTileDepth; ++k) {
    const int a = k / kTileDepth * Case::kTileBytes, b = a + Case::A::kBytes, at = k % kTileDepth;
    for (int m = 0; m < kRows; ++m) store(a + Case::A::byte(m, at), a_at(m, k));
    for (int n = 0; n < Case::kColumns; ++n) store(b + Case::B::byte(n, at), b_at(k, n));
  }
  return image;
}

// Compares out[thread][sum] with c + a b.
void check_product(const std::vector<float>& out, int columns, int depth, bool with_c) {
  for (int m = 0; m < kRows; ++m)
    for (int n = 0; n < columns; ++n) {
      int expected = with_c ? c_at(m, n) : 0;
      for (int k = 0; k < depth; ++k) expected += a_at(m, k) * b_at(k, n);
      check_equal(out[thread_of(m, n) * (columns / 2) + coord_of(m, n)], static_cast<float>(expected),
                  "element of the product");
    }
}

template <typename Case, Groups kGroups = Groups::kOne>
void check_multiply() {
  const std::vector<uint4> image = tiles_image<Case>();
  const int bytes = static_cast<int>(image.size() * 16);
  std::vector<float> c(128 * Case::kSums), out(c.size());
  for (int m = 0; m < kRows; ++m)
    for (int n = 0; n < Case::kColumns; ++n)
      c[thread_of(m, n) * Case::kSums + coord_of(m, n)] = static_cast<float>(c_at(m, n));
  const auto kernel = multiply<Case, kGroups>;
  constexpr auto kAttribute = cudaFuncAttributeMaxDynamicSharedMemorySize;
  check_equal(static_cast<int>(cudaFuncSetAttribute(kernel, kAttribute, bytes)), 0, "error of the attribute");
  run(kernel, 1, 128, static_cast<size_t>(bytes), image.data(), bytes, static_cast<const float*>(c.data()),
      out.data());
  check_product(out, Case::kColumns, kTiles * kTileDepth, true);
}

template <typename Stored, int kColumns, bool kSpread = false>
void check_majors() {
  check_multiply<Case<Stored, kColumns, Major::kK, Major::kK, kSpread>>();
  check_multiply<Case<Stored, kColumns, Major::kK, Major::kMN, kSpread>>();
  check_multiply<Case<Stored, kColumns, Major::kMN, Major::kK, kSpread>>();
  check_multiply<Case<Stored, kColumns, Major::kMN, Major::kMN, kSpread>>();
}

}  // namespace

TEST(wgmma_multiplies_bf16) {
  check_majors<BFloat16, 64>();
  check_majors<BFloat16, 128>();
  check_majors<BFloat16, 256>();
}
TEST(wgmma_multiplies_f16) {
  check_majors<Float16, 64>();
  check_majors<Float16, 128>();
  check_majors<Float16, 256>();
}
TEST(wgmma_takes_operands_whose_lines_are_spread) { check_majors<BFloat16, 128, true>(); }
TEST(wgmma_adds_up_over_groups) {
  using Product = Case<BFloat16, 64, Major::kK, Major::kMN, false>;
  check_multiply<Product, Groups::kOnePerTile>();
  check_multiply<Product, Groups::kOneAtATime>();
}

// TF32: a in registers, tiles of b 32 deep, four instructions.
template <int kColumns>
static __global__ void multiply_tf32(const uint4* image, int bytes, const uint32_t* a, float* out) {
  fill_shared(image, bytes);
  uint32_t words[4][4];
  for (int step = 0; step < 4; ++step)
    for (int i = 0; i < 4; ++i) words[step][i] = a[(threadIdx.x * 4 + step) * 4 + i];
  float d[kColumns / 2] = {};
  wgmma_fence();
  for (int step = 0; step < 4; ++step)
    wgmma_tf32<kColumns>(d, words[step], wgmma_operand(shared_memory<unsigned char>() + 32 * step, 16, 1024));
  wgmma_commit();
  wgmma_wait<0>(d);
  for (int i = 0; i < kColumns / 2; ++i) out[threadIdx.x * (kColumns / 2) + i] = d[i];
}

// Noise in the 13 bits that the tensor cores ignore.
static uint32_t tf32_bits(int v) {
  const float wide = static_cast<float>(v);
  uint32_t bits;
  std::memcpy(&bits, &wide, sizeof bits);
  return bits | 0x1abc;
}

template <int kColumns>
static void check_tf32() {
  std::vector<uint4> image(kColumns * 128 / 16);
  std::vector<uint32_t> a(128 * 4 * 4);
  for (int k = 0; k < 32; ++k) {
    for (int m = 0; m < kRows; ++m)  // the lane of row m and column k of its eight columns
      a[((m / 16 * 32 + m % 8 * 4 + k % 4) * 4 + k / 8) * 4 + m % 16 / 8 + k % 8 / 4 * 2] =
          tf32_bits(a_at(m, k));
    for (int n = 0; n < kColumns; ++n) {
      const uint32_t bits = tf32_bits(b_at(k, n));
      std::memcpy(reinterpret_cast<unsigned char*>(image.data()) + n / 8 * 1024 + n % 8 * 128 +
                      ((k / 4) ^ (n % 8)) * 16 + k % 4 * 4,
                  &bits, sizeof bits);
    }
  }
  std::vector<float> out(128 * kColumns / 2);
  run(multiply_tf32<kColumns>, 1, 128, image.size() * 16, image.data(), static_cast<int>(image.size() * 16),
      static_cast<const uint32_t*>(a.data()), out.data());
  check_product(out, kColumns, 32, false);
}

TEST(wgmma_multiplies_tf32) {
  check_tf32<64>();
  check_tf32<128>();
  check_tf32<256>();
}
