#include "cuda_emulator/matrix.h"

#include <cmath>
#include <cstring>
#include <string>

#include "access_log.h"
#include "address.h"
#include "common_src/number.h"
#include "cuda_emulator/math.h"
#include "cuda_emulator/meeting.h"
#include "launch_counters.h"

namespace cuda_emulator {
namespace {

constexpr unsigned kLanes = 32, kRows = 8;  // of a matrix that ldmatrix loads
constexpr size_t kRowBytes = 16;

bool whole_warp(Party& warp) {
  for (unsigned lane = 0; lane < kLanes; ++lane)
    if (!warp.has(lane)) {
      warp.fail("lane " + std::to_string(lane) + " takes no part, and the whole warp must");
      return false;
    }
  return true;
}

// A matrix has 128 bytes: its rows are served by the banks together.
void count_ldmatrix(const Party& warp, unsigned matrices) {
  SharedTraffic& traffic = launch_counters->ldmatrix;
  ++traffic.instructions;
  traffic.bytes += kRowBytes * kRows * matrices;
  for (unsigned j = 0; j < matrices; ++j) {
    SharedPhase phase;
    for (unsigned i = 0; i < kRows; ++i) phase.add(warp.in<const void*>(kRows * j + i), kRowBytes);
    phase.count(traffic);
  }
}

template <int kMatrices, bool kTransposed>
void load_matrices(Party& warp) {
  if (!whole_warp(warp)) return;
  if (launch_counters) count_ldmatrix(warp, kMatrices);
  for (unsigned j = 0; j < kMatrices; ++j) {
    uint16_t matrix[kRows][kRows];
    for (unsigned i = 0; i < kRows; ++i)
      std::memcpy(matrix[i], warp.in<const void*>(kRows * j + i), kRowBytes);
    for (unsigned lane = 0; lane < kLanes; ++lane) {
      const unsigned g = lane / 4, t = lane % 4;
      const uint32_t lower = kTransposed ? matrix[2 * t][g] : matrix[g][2 * t];
      const uint32_t upper = kTransposed ? matrix[2 * t + 1][g] : matrix[g][2 * t + 1];
      warp.out<uint32_t[kMatrices]>(lane)[j] = upper << 16 | lower;
    }
  }
}

// The element types: how many fit a register, and their values.
struct BF16 {
  static constexpr uint64_t Counters::* kCounter = &Counters::mma_bf16;
  static constexpr int kInRegister = 2;
  static float element(uint32_t bits, int i) {
    return convgrad::widen(convgrad::BFloat16{static_cast<uint16_t>(bits >> 16 * i)});
  }
};
struct F16 {
  static constexpr uint64_t Counters::* kCounter = &Counters::mma_f16;
  static constexpr int kInRegister = 2;
  static float element(uint32_t bits, int i) {
    return convgrad::widen(convgrad::Float16{static_cast<uint16_t>(bits >> 16 * i)});
  }
};
struct TF32 {
  static constexpr uint64_t Counters::* kCounter = &Counters::mma_tf32;
  static constexpr int kInRegister = 1;
  static float element(uint32_t bits, int) { return bits_as<float>(bits & ~0x1fffu); }
};

struct Operands {
  const uint32_t* a;
  const uint32_t* b;
};

// A register holds kEach neighbours along the depth; a group of four lanes holds 4 * kEach.
template <typename Element>
void multiply_add(Party& warp) {
  if (!whole_warp(warp)) return;
  constexpr int kEach = Element::kInRegister, kHalf = 4 * kEach, kDepth = 2 * kHalf;
  if (launch_counters) launch_counters->*Element::kCounter += 16 * 8 * kDepth;
  float a[16][kDepth], b[kDepth][8], d[16][8];
  for (unsigned lane = 0; lane < kLanes; ++lane) {
    const int g = static_cast<int>(lane) / 4, t = static_cast<int>(lane) % 4;
    const auto [in_a, in_b] = warp.in<Operands>(lane);
    const float* in_d = warp.out<float[4]>(lane);
    for (int r = 0; r < 4; ++r)
      for (int i = 0; i < kEach; ++i)
        a[g + 8 * (r % 2)][kHalf * (r / 2) + kEach * t + i] = Element::element(in_a[r], i);
    for (int r = 0; r < 2; ++r)
      for (int i = 0; i < kEach; ++i) b[kHalf * r + kEach * t + i][g] = Element::element(in_b[r], i);
    for (int r = 0; r < 4; ++r) d[g + 8 * (r / 2)][2 * t + r % 2] = in_d[r];
  }
  for (int m = 0; m < 16; ++m)
    for (int k = 0; k < kDepth; ++k)
      for (int n = 0; n < 8; ++n) d[m][n] += a[m][k] * b[k][n];  // the product is exact, fused or not
  for (unsigned lane = 0; lane < kLanes; ++lane) {
    const int g = static_cast<int>(lane) / 4, t = static_cast<int>(lane) % 4;
    for (int r = 0; r < 4; ++r) warp.out<float[4]>(lane)[r] = d[g + 8 * (r / 2)][2 * t + r % 2];
  }
}

struct DoubleOperands {
  double a, b;
};

void multiply_add_f64(Party& warp) {
  if (!whole_warp(warp)) return;
  if (launch_counters) launch_counters->mma_f64 += 8 * 8 * 4;
  double a[8][4], b[4][8];
  for (unsigned lane = 0; lane < kLanes; ++lane) {
    const DoubleOperands& in = warp.in<DoubleOperands>(lane);
    a[lane / 4][lane % 4] = in.a;
    b[lane % 4][lane / 4] = in.b;
  }
  for (unsigned lane = 0; lane < kLanes; ++lane)
    for (unsigned i = 0; i < 2; ++i) {
      double& sum = warp.out<double[2]>(lane)[i];
      for (int k = 0; k < 4; ++k) sum = std::fma(a[lane / 4][k], b[k][2 * (lane % 4) + i], sum);
    }
}

}  // namespace

template <int kMatrices, bool kTransposed>
void ldmatrix(uint32_t (&d)[kMatrices], const void* row) {
  if (thread_rank() % kLanes < kMatrices * kRows) check_shared_address("ldmatrix", row, kRowBytes);
  meet({"ldmatrix", kWarp, kAllLanes, load_matrices<kMatrices, kTransposed>}, &row, d);
}
template void ldmatrix<2, false>(uint32_t (&)[2], const void*);
template void ldmatrix<2, true>(uint32_t (&)[2], const void*);
template void ldmatrix<4, false>(uint32_t (&)[4], const void*);
template void ldmatrix<4, true>(uint32_t (&)[4], const void*);

void mma_bf16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  const Operands in{a, b};
  meet({"mma.sync (bf16)", kWarp, kAllLanes, multiply_add<BF16>}, &in, d);
}

void mma_f16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  const Operands in{a, b};
  meet({"mma.sync (f16)", kWarp, kAllLanes, multiply_add<F16>}, &in, d);
}

void mma_tf32(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  const Operands in{a, b};
  meet({"mma.sync (tf32)", kWarp, kAllLanes, multiply_add<TF32>}, &in, d);
}

void mma_f64(double (&d)[2], double a, double b) {
  const DoubleOperands in{a, b};
  meet({"mma.sync (f64)", kWarp, kAllLanes, multiply_add_f64}, &in, d);
}

uint32_t to_tf32(float value) {
  constexpr uint32_t kHalfUnit = 0x1000, kIgnored = 0x1fff, kNaN = 0x7fffffff;
  if (std::isnan(value)) return kNaN;
  // Rounds the magnitude's bits; past the largest finite number this carries into infinity, as it should.
  return (bits_as<uint32_t>(value) + kHalfUnit) & ~kIgnored;
}

}  // namespace cuda_emulator
