// Replaces the project's header of the same name, which documents each function.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>
#include <type_traits>

#include "common_src/major.h"
#include "common_src/number.h"
#include "cuda_emulator/mbarrier.h"
#include "cuda_emulator/register_budget.h"
#include "cuda_emulator/tma.h"
#include "cuda_emulator/wgmma.h"
#include "cuda_src/arch/ptx.cuh"
#include "cuda_src/arch/tensor_map.h"

namespace convgrad::cuda {

inline void mbarrier_init(uint64_t* barrier, unsigned arrivals) {
  cuda_emulator::mbarrier_init(barrier, arrivals);
}
inline void mbarrier_init_fence() { cuda_emulator::mbarrier_init_fence(); }
inline void mbarrier_arrive(uint64_t* barrier) { cuda_emulator::mbarrier_arrive(barrier, 0); }
inline void mbarrier_arrive_expect(uint64_t* barrier, unsigned bytes) {
  cuda_emulator::mbarrier_arrive(barrier, bytes);
}
inline void mbarrier_wait(uint64_t* barrier, unsigned parity) {
  cuda_emulator::mbarrier_wait(barrier, parity);
}

inline void tma_prefetch(const TensorMap& map) { cuda_emulator::tma_prefetch(&map); }
template <int kRank>
void tma_load(void* shared, const TensorMap& map, uint64_t* barrier, const int (&at)[kRank]) {
  static_assert(kRank == 2 || kRank == 3);
  cuda_emulator::tma_load(shared, &map, barrier, kRank, at);
}
template <int kRank>
void tma_load_im2col(void* shared, const TensorMap& map, uint64_t* barrier, const int (&at)[kRank],
                     const int (&offset)[kRank - 2]) {
  static_assert(kRank >= 3 && kRank <= 5);
  cuda_emulator::tma_load_im2col(shared, &map, barrier, kRank, at, offset);
}

inline uint64_t wgmma_operand(const void* shared, int leading_bytes, int stride_bytes) {
  return cuda_emulator::wgmma_operand(shared, leading_bytes, stride_bytes);
}
inline void wgmma_fence() { cuda_emulator::wgmma_fence(); }
inline void wgmma_commit() { cuda_emulator::wgmma_commit(); }
template <int kPending, int kSums>
void wgmma_wait(float (&d)[kSums]) {
  static_assert(kPending >= 0 && kPending <= 7);
  cuda_emulator::wgmma_wait(kPending, d);
}
template <typename Stored, int kColumns, Major kA, Major kB>
void wgmma(float (&d)[kColumns / 2], uint64_t a, uint64_t b) {
  static_assert(kColumns >= 8 && kColumns <= 256 && kColumns % 8 == 0);
  constexpr bool kF16 = std::is_same_v<Stored, Float16>;
  static_assert(kF16 || std::is_same_v<Stored, BFloat16>);
  constexpr auto kType = kF16 ? cuda_emulator::WgmmaType::kF16 : cuda_emulator::WgmmaType::kBF16;
  cuda_emulator::wgmma({kType, kColumns, a, b, kA == Major::kMN, kB == Major::kMN}, nullptr, d);
}
template <int kColumns>
void wgmma_tf32(float (&d)[kColumns / 2], const uint32_t (&a)[4], uint64_t b) {
  static_assert(kColumns >= 8 && kColumns <= 256 && kColumns % 8 == 0);
  cuda_emulator::wgmma({cuda_emulator::WgmmaType::kTF32, kColumns, 0, b, false, false}, a, d);
}

template <int kRegisters>
void raise_registers() {
  static_assert(kRegisters >= 24 && kRegisters <= 256 && kRegisters % 8 == 0);
  cuda_emulator::raise_registers(kRegisters);
}
template <int kRegisters>
void lower_registers() {
  static_assert(kRegisters >= 24 && kRegisters <= 256 && kRegisters % 8 == 0);
  cuda_emulator::lower_registers(kRegisters);
}

}  // namespace convgrad::cuda
