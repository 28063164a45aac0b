// What the processor's arithmetic units can do at most, to measure the kernels against.
#pragma once

namespace convgrad::cpu {

// Floating-point operations a second, two for each f32 multiply-add, of the calling thread over about so
// many seconds: independent chains of multiply-adds that never leave the registers, on the widest vectors
// that the processor has.
double peak_flops(double seconds);

}  // namespace convgrad::cpu
