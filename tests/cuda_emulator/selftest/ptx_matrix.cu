// Compares ldmatrix and mma.sync with plain loops. The place of a matrix element in the fragments is computed
// here from the element: which lane, which register, which half of it.
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <vector>

#include "check.h"
#include "cuda_src/arch/ptx.cuh"
#include "cuda_src/arch/shared_memory.cuh"

using namespace selftest;
using namespace convgrad::cuda;

namespace {

uint32_t bits_of(float v) {
  uint32_t bits;
  std::memcpy(&bits, &v, sizeof bits);
  return bits;
}

struct Bf16 {
  static constexpr int kDepth = 16, kInRegister = 2;
  static uint32_t bits(int v) { return bits_of(static_cast<float>(v)) >> 16; }
  static __device__ void multiply(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
    mma_bf16_16x8x16(d, a, b);
  }
};

struct F16 {
  static constexpr int kDepth = 16, kInRegister = 2;
  // A small whole number: f32's exponent and mantissa, cut to 5 and 10 bits.
  static uint32_t bits(int v) {
    const uint32_t wide = bits_of(static_cast<float>(v));
    return v == 0 ? 0 : (wide >> 16 & 0x8000) | (((wide >> 13) - (112u << 10)) & 0x7fff);
  }
  static __device__ void multiply(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
    mma_f16_16x8x16(d, a, b);
  }
};

struct Tf32 {
  static constexpr int kDepth = 8, kInRegister = 1;
  // Noise in the 13 bits that the tensor core ignores.
  static uint32_t bits(int v) { return bits_of(static_cast<float>(v)) | (0x1abcu & 0x1fff); }
  static __device__ void multiply(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
    mma_tf32_16x8x8(d, a, b);
  }
};

struct Fragments {
  uint32_t a[4], b[2];
  float d[4];
};

template <typename Kind>
__global__ void multiply(Fragments* all) {
  Fragments f = all[threadIdx.x];
  Kind::multiply(f.d, f.a, f.b);
  all[threadIdx.x] = f;
}

// Returns the lane whose fragment of d holds the element, and its place there.
int lane_of_d(int m, int n) { return m % 8 * 4 + n / 2; }
int place_in_d(int m, int n) { return m / 8 * 2 + n % 2; }

template <typename Kind>
void check_multiply() {
  constexpr int kDepth = Kind::kDepth, kEach = Kind::kInRegister, kWarps = 2;
  std::vector<Fragments> all(32 * kWarps);
  const auto a = [](int warp, int m, int k) { return (m * 5 + k * 3 + warp) % 17 - 8; };
  const auto b = [](int warp, int k, int n) { return (k * 7 + n * 4 + warp * 3) % 13 - 6; };
  const auto c = [](int warp, int m, int n) { return m * 8 + n + 1000 * warp; };
  for (int warp = 0; warp < kWarps; ++warp)
    for (int k = 0; k < kDepth; ++k) {
      const int t = k % (kDepth / 2) / kEach, half = k % kEach, upper = k / (kDepth / 2);
      for (int m = 0; m < 16; ++m)
        all[32 * warp + m % 8 * 4 + t].a[2 * upper + m / 8] |= Kind::bits(a(warp, m, k)) << 16 * half;
      for (int n = 0; n < 8; ++n)
        all[32 * warp + n * 4 + t].b[upper] |= Kind::bits(b(warp, k, n)) << 16 * half;
    }
  for (int warp = 0; warp < kWarps; ++warp)
    for (int m = 0; m < 16; ++m)
      for (int n = 0; n < 8; ++n)
        all[32 * warp + lane_of_d(m, n)].d[place_in_d(m, n)] = static_cast<float>(c(warp, m, n));

  run(multiply<Kind>, 1, 32 * kWarps, 0, all.data());

  for (int warp = 0; warp < kWarps; ++warp)
    for (int m = 0; m < 16; ++m)
      for (int n = 0; n < 8; ++n) {
        int expected = c(warp, m, n);
        for (int k = 0; k < kDepth; ++k) expected += a(warp, m, k) * b(warp, k, n);
        check_equal(all[32 * warp + lane_of_d(m, n)].d[place_in_d(m, n)], static_cast<float>(expected),
                    "element of the product");
      }
}

}  // namespace

TEST(mma_multiplies_bf16) { check_multiply<Bf16>(); }
TEST(mma_multiplies_f16) { check_multiply<F16>(); }
TEST(mma_multiplies_tf32) { check_multiply<Tf32>(); }

// A single product: row 0 of a by column 0 of b, at depth 0, both in lane 0's first registers.
template <typename Kind>
static float one_product(uint32_t a, uint32_t b, float c) {
  std::vector<Fragments> all(32);
  all[0].a[0] = a;
  all[0].b[0] = b;
  all[0].d[0] = c;
  run(multiply<Kind>, 1, 32, 0, all.data());
  return all[0].d[0];
}

TEST(mma_reads_every_kind_of_number) {
  check_equal(one_product<F16>(0x0001, 0x3c00, 0), 0x1p-24f, "the least subnormal f16");
  check_equal(one_product<F16>(0x83ff, 0x3c00, 0), -1023 * 0x1p-24f, "the largest subnormal f16");
  check_equal(one_product<F16>(0x7bff, 0x7bff, 0), 65504.0f * 65504.0f, "the square of the largest f16");
  check_equal(one_product<F16>(0xfc00, 0x3c00, 0), -INFINITY, "minus infinity");
  check(std::isnan(one_product<F16>(0xffff, 0x3c00, 0)), "an f16 of shared memory's poison is a number");
  check(std::isnan(one_product<Bf16>(0xffff, 0x3f80, 0)), "a bf16 of shared memory's poison is a number");
  check(std::isnan(one_product<Tf32>(~0u, bits_of(1), 0)), "a tf32 of shared memory's poison is a number");
  check_equal(one_product<Bf16>(0x3f81, 0x3f81, 0), 0x1.0404p0f, "product of two bf16, 1 + 2^-7 squared");
  check_equal(one_product<Tf32>(bits_of(0x1.ffdffep0f), bits_of(1), 0), 0x1.ffcp0f, "a truncated tf32");
  check_equal(one_product<Tf32>(bits_of(1), bits_of(-0x1.ffdffep0f), 0), -0x1.ffcp0f, "a truncated tf32");
}

static __global__ void round_to_tf32(const float* in, uint32_t* out) {
  out[threadIdx.x] = to_tf32(in[threadIdx.x]);
}

TEST(to_tf32_rounds_to_nearest_and_ties_away_from_zero) {
  const float in[] = {1.0f,       0x1.001ffep0f, 0x1.002p0f,      -0x1.002p0f,
                      0x1.006p0f, 0x1.fffffep0f, 0x1.fffffep127f, -INFINITY,
                      -0.0f,      0x1p-149f,     0x1.8p-127f,     0x1p-137f};
  const float expected[] = {1.0f,     1.0f,      0x1.004p0f, -0x1.004p0f, 0x1.008p0f,  2.0f,
                            INFINITY, -INFINITY, -0.0f,      0.0f,        0x1.8p-127f, 0x1p-136f};
  constexpr unsigned n = sizeof in / sizeof *in;
  std::vector<uint32_t> out(n);
  run(round_to_tf32, 1, n, 0, static_cast<const float*>(in), out.data());
  for (unsigned i = 0; i < n; ++i) check_equal(out[i], bits_of(expected[i]), "bits of a tf32");
  const float nan = std::numeric_limits<float>::quiet_NaN();
  run(round_to_tf32, 1, 1, 0, &nan, out.data());
  check((out[0] & 0x7fffe000) > 0x7f800000, "a NaN became a number");
}

struct DoubleFragments {
  double a, b, d[2];
};

static __global__ void multiply_f64(DoubleFragments* all) {
  DoubleFragments f = all[threadIdx.x];
  mma_f64_8x8x4(f.d, f.a, f.b);
  all[threadIdx.x] = f;
}

TEST(mma_multiplies_f64) {
  std::vector<DoubleFragments> all(32);
  const auto a = [](int m, int k) { return 1.0 / (3 + m + 8 * k); };
  const auto b = [](int k, int n) { return 1.0 / (40 + n + 8 * k); };
  const auto c = [](int m, int n) { return 0.1 * (m - n); };
  for (int k = 0; k < 4; ++k)
    for (int i = 0; i < 8; ++i) {
      all[4 * i + k].a = a(i, k);
      all[4 * i + k].b = b(k, i);
    }
  for (int m = 0; m < 8; ++m)
    for (int n = 0; n < 8; ++n) all[4 * m + n / 2].d[n % 2] = c(m, n);
  run(multiply_f64, 1, 32, 0, all.data());
  for (int m = 0; m < 8; ++m)
    for (int n = 0; n < 8; ++n) {
      double expected = c(m, n);
      for (int k = 0; k < 4; ++k) expected = std::fma(a(m, k), b(k, n), expected);
      check_equal(all[4 * m + n / 2].d[n % 2], expected, "element of the product");
    }
}

// Copies `bytes` to shared memory, then loads matrices whose rows begin at `offset`, lane by lane.
template <int kMatrices, bool kTransposed>
__global__ void load(const uint32_t* memory, unsigned bytes, const int* offset, uint32_t* out) {
  unsigned char* shared = shared_memory<unsigned char>();
  for (unsigned i = threadIdx.x; i < bytes / 4; i += blockDim.x)
    reinterpret_cast<uint32_t*>(shared)[i] = memory[i];
  __syncthreads();
  uint32_t d[kMatrices];
  const void* row = shared + offset[threadIdx.x];
  if constexpr (kMatrices == 4 && kTransposed) ldmatrix_x4_trans(d, row);
  if constexpr (kMatrices == 4 && !kTransposed) ldmatrix_x4(d, row);
  if constexpr (kMatrices == 2 && kTransposed) ldmatrix_x2_trans(d, row);
  if constexpr (kMatrices == 2 && !kTransposed) ldmatrix_x2(d, row);
  for (int j = 0; j < kMatrices; ++j) out[kMatrices * threadIdx.x + j] = d[j];
}

// 32 rows of 8 elements, element c of row r being 8 r + c.
static std::vector<uint32_t> counting_rows() {
  std::vector<uint32_t> memory(32 * 4);
  for (uint32_t i = 0; i < memory.size(); ++i) memory[i] = (2 * i + 1) << 16 | 2 * i;
  return memory;
}

template <int kMatrices, bool kTransposed>
static void check_load() {
  constexpr unsigned kBytes = 32 * 16;
  const std::vector<uint32_t> memory = counting_rows();
  std::vector<int> offset(32);
  const auto row_of = [](int lane) { return lane * 11 % 32; };
  // Lanes beyond the last row may hold anything.
  for (int lane = 0; lane < 32; ++lane) offset[lane] = lane < 8 * kMatrices ? 16 * row_of(lane) : -1000001;
  std::vector<uint32_t> out(32 * kMatrices);
  run(load<kMatrices, kTransposed>, 1, 32, kBytes, memory.data(), kBytes,
      static_cast<const int*>(offset.data()), out.data());
  for (int j = 0; j < kMatrices; ++j)
    for (int i = 0; i < 8; ++i)
      for (int c = 0; c < 8; ++c) {
        const int r = kTransposed ? c : i, q = kTransposed ? i : c;  // the fragment's row and column
        const uint32_t word = out[kMatrices * (4 * r + q / 2) + j],
                       element = q % 2 ? word >> 16 : word & 0xffff;
        check_equal(element, static_cast<uint32_t>(8 * row_of(8 * j + i) + c), "element of a matrix");
      }
}

TEST(ldmatrix_loads_rows) {
  check_load<4, false>();
  check_load<2, false>();
}
TEST(ldmatrix_transposes) {
  check_load<4, true>();
  check_load<2, true>();
}

TEST(misplaced_ldmatrix_rows_are_errors) {
  const std::vector<uint32_t> memory = counting_rows();
  constexpr unsigned kBytes = 32 * 16;
  const auto with_lane_19_at = [&](int place, auto check_launch) {
    std::vector<int> offset(32);
    for (int lane = 0; lane < 32; ++lane) offset[lane] = lane == 19 ? place : 16 * lane;
    check_launch(static_cast<const int*>(offset.data()));
  };
  std::vector<uint32_t> out(32 * 4);
  const auto fails = [&](int place, const char* words) {
    with_lane_19_at(place, [&](const int* offset) {
      check_fails(words, load<4, false>, 1, 32, kBytes, memory.data(), kBytes, offset, out.data());
    });
  };
  fails(8, "thread (19,0,0), ldmatrix: an address in shared memory that is no multiple of 16, but 8 beyond");
  fails(kBytes, "thread (19,0,0), ldmatrix: 16 bytes from byte 512 of the block's 512 bytes");
  fails(-16, "thread (19,0,0), ldmatrix: 16 bytes from byte -16 of the block's 512 bytes");
  with_lane_19_at(8, [&](const int* offset) {  // with two matrices, lane 19 addresses no row
    run(load<2, false>, 1, 32, kBytes, memory.data(), kBytes, offset, out.data());
  });
}

static __global__ void multiply_without(unsigned missing, float* out) {
  if (threadIdx.x == missing) return;
  float d[4] = {};
  const uint32_t a[4] = {}, b[2] = {};
  mma_bf16_16x8x16(d, a, b);
  out[threadIdx.x] = d[0];
}

TEST(mma_without_the_whole_warp_is_an_error) {
  std::vector<float> out(32);
  run(multiply_without, 1, 32, 0, 32u, out.data());
  check_fails("mma.sync (bf16): lane 5 takes no part, and the whole warp must", multiply_without, 1, 32, 0,
              5u, out.data());
  check_fails("mma.sync (bf16): lane 24 takes no part", multiply_without, 1, 24, 0, 32u, out.data());
}

// c[16,8] = a[16,16] b[16,8] in bf16, a and b stored row by row, or b by columns.
template <bool kColumns>
__global__ void multiply_matrices(const uint16_t* a, const uint16_t* b, float* c) {
  uint16_t* a_tile = shared_memory<uint16_t>();
  uint16_t* b_tile = a_tile + 16 * 16;
  const unsigned lane = threadIdx.x;
  cp_async<16>(a_tile + 8 * lane, a + 8 * lane, true);
  if (lane < 16) cp_async<16>(b_tile + 8 * lane, b + 8 * lane, true);
  cp_async_commit();
  cp_async_wait<0>();
  __syncwarp();

  uint32_t a_part[4], b_part[2];
  // The matrices of a: the upper rows of the first eight columns, then the lower rows, then the same for the
  // other columns.
  ldmatrix_x4(a_part, a_tile + lane % 16 * 16 + lane / 16 * 8);
  if (kColumns)
    ldmatrix_x2(b_part, b_tile + lane % 8 * 16 + lane / 8 % 2 * 8);
  else
    ldmatrix_x2_trans(b_part, b_tile + lane % 16 * 8);
  float d[4] = {};
  mma_bf16_16x8x16(d, a_part, b_part);
  for (unsigned i = 0; i < 4; ++i) c[(lane / 4 + i / 2 * 8) * 8 + lane % 4 * 2 + i % 2] = d[i];
}

TEST(copies_ldmatrix_and_mma_make_a_matrix_product) {
  const auto a = [](int m, int k) { return (m * 3 + k * 5) % 11 - 5; };
  const auto b = [](int k, int n) { return (k * 2 + n * 7) % 15 - 7; };
  std::vector<float4> aligned((16 * 16 + 2 * 16 * 8) * 2 / sizeof(float4));
  uint16_t* const a_bits = reinterpret_cast<uint16_t*>(aligned.data());
  uint16_t* const b_rows = a_bits + 16 * 16;
  uint16_t* const b_columns = b_rows + 16 * 8;
  for (int k = 0; k < 16; ++k) {
    for (int m = 0; m < 16; ++m) a_bits[16 * m + k] = static_cast<uint16_t>(Bf16::bits(a(m, k)));
    for (int n = 0; n < 8; ++n)
      b_rows[8 * k + n] = b_columns[16 * n + k] = static_cast<uint16_t>(Bf16::bits(b(k, n)));
  }
  for (const bool columns : {false, true}) {
    std::vector<float> c(16 * 8);
    run(columns ? multiply_matrices<true> : multiply_matrices<false>, 1, 32, (16 * 16 + 16 * 8) * 2,
        static_cast<const uint16_t*>(a_bits), static_cast<const uint16_t*>(columns ? b_columns : b_rows),
        c.data());
    for (int m = 0; m < 16; ++m)
      for (int n = 0; n < 8; ++n) {
        int expected = 0;
        for (int k = 0; k < 16; ++k) expected += a(m, k) * b(k, n);
        check_equal(c[8 * m + n], static_cast<float>(expected), "element of the product");
      }
  }
}
