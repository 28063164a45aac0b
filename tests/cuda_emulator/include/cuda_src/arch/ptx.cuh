// Replaces the project's header of the same name, which documents each function.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "cuda_emulator/async_copy.h"
#include "cuda_emulator/matrix.h"

namespace convgrad::cuda {

template <int kBytes>
void cp_async(void* shared, const void* global, bool valid) {
  static_assert(kBytes == 4 || kBytes == 8 || kBytes == 16);
  cuda_emulator::cp_async(shared, global, kBytes, valid);
}
inline void cp_async_commit() { cuda_emulator::cp_async_commit(); }
template <int kPending>
void cp_async_wait() {
  static_assert(kPending >= 0);
  cuda_emulator::cp_async_wait(kPending);
}

inline void ldmatrix_x4(uint32_t (&d)[4], const void* row) { cuda_emulator::ldmatrix<4, false>(d, row); }
inline void ldmatrix_x4_trans(uint32_t (&d)[4], const void* row) { cuda_emulator::ldmatrix<4, true>(d, row); }
inline void ldmatrix_x2(uint32_t (&d)[2], const void* row) { cuda_emulator::ldmatrix<2, false>(d, row); }
inline void ldmatrix_x2_trans(uint32_t (&d)[2], const void* row) { cuda_emulator::ldmatrix<2, true>(d, row); }

inline void mma_bf16_16x8x16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  cuda_emulator::mma_bf16(d, a, b);
}
inline void mma_f16_16x8x16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  cuda_emulator::mma_f16(d, a, b);
}
inline void mma_tf32_16x8x8(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  cuda_emulator::mma_tf32(d, a, b);
}
inline void mma_f64_8x8x4(double (&d)[2], double a, double b) { cuda_emulator::mma_f64(d, a, b); }

inline uint32_t to_tf32(float value) { return cuda_emulator::to_tf32(value); }

}  // namespace convgrad::cuda
