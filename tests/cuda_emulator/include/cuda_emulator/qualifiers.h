// CUDA's declaration qualifiers, empty on a host, where every function is a host function.
//
// __shared__ is missing on purpose, because cuda_src/arch/shared_memory.cuh is the only way to shared memory.
// So is __noinline__, which the host's own headers use as an attribute's name.
#pragma once

#define __global__
#define __device__
#define __host__
#define __constant__
#define __grid_constant__
#define __launch_bounds__(...)
#define __forceinline__ inline __attribute__((always_inline))
#define __align__(bytes) __attribute__((aligned(bytes)))
