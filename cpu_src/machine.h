// Measures the peak of the processor's arithmetic units, to compare the kernels with.
#pragma once

namespace convgrad::cpu {

// Returns floating-point operations per second (two per f32 multiply-add) of the calling thread, measured
// over about `seconds`: independent chains of multiply-adds that stay in registers, on the widest vectors of
// the processor.
double peak_flops(double seconds);

}  // namespace convgrad::cpu
