// The built-in variables, set before a fiber runs. Variables and not macros, because blockDim and gridDim
// are also fields of cudaLaunchConfig_t.
#pragma once

#include "cuda_emulator/vector_types.h"

// __constinit spares every access a call that asks whether the variable has been initialised.
extern __constinit thread_local uint3 threadIdx;
extern __constinit thread_local uint3 blockIdx;
extern __constinit thread_local dim3 blockDim;
extern __constinit thread_local dim3 gridDim;

inline constexpr int warpSize = 32;
