// The built-in variables, set before a fiber runs. Variables and not macros, because blockDim and gridDim
// are also fields of cudaLaunchConfig_t.
#pragma once

#include "cuda_emulator/vector_types.h"

// __thread, unlike thread_local, spares every access a call that asks whether it has been initialised.
extern __thread uint3 threadIdx;
extern __thread uint3 blockIdx;
extern __thread dim3 blockDim;
extern __thread dim3 gridDim;

inline constexpr int warpSize = 32;
