// Emulates ldmatrix and mma.sync: the warp meets once for each, and all of its lanes must come.
//
// The PTX ISA leaves the order and the rounding of an instruction's additions open for f32 results. Here the
// products, exact in f32, are added to d one after another in the order of the depth, and each sum is rounded
// to nearest. A tensor core adds several products at once and may truncate, so results agree within rounding
// errors, not bit by bit. In f64 each step is one fused multiply-add, in the order of the depth.
#pragma once

#include <cstdint>

namespace cuda_emulator {

// kMatrices is 2 or 4. The launch fails if a row's address is not a multiple of 16, or if the row is not in
// the block's shared memory.
template <int kMatrices, bool kTransposed>
void ldmatrix(uint32_t (&d)[kMatrices], const void* row);

void mma_bf16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]);
void mma_f16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]);
void mma_tf32(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]);
void mma_f64(double (&d)[2], double a, double b);

// Infinities stay; every NaN becomes the one NaN that hardware gives.
uint32_t to_tf32(float value);

}  // namespace cuda_emulator
