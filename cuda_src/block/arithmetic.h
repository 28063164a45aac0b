// The arithmetics of the staged kernels: by themselves, for the plan, which the host's compiler compiles.
#pragma once

namespace convgrad::cuda {

// How products are multiplied and added: on tensor cores in the type that is stored, on tensor cores as TF32
// (f32 with 10 bits of mantissa), or by fused multiply-adds in full f32.
enum class Math { kBF16, kF16, kTF32, kF32, kF64 };

}  // namespace convgrad::cuda
