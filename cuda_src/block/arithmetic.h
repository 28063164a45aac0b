// The arithmetics of the multistage kernels, in a header of their own because the host compiler needs them
// for the plan.
#pragma once

namespace convgrad::cuda {

// Products of bf16, f16 and f64 on tensor cores in the stored type, of f32 on tensor cores as TF32 (10 bits
// of mantissa), or of f32 by fused multiply-adds in full f32.
enum class Math { kBF16, kF16, kTF32, kF32, kF64 };

}  // namespace convgrad::cuda
