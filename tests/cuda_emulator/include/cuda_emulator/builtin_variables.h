// The built-in variables, set before a fiber runs. They are variables, not macros, because blockDim and
// gridDim are also fields of cudaLaunchConfig_t.
#pragma once

#include "cuda_emulator/vector_types.h"

// __thread, unlike thread_local, needs no call at each access that checks for initialisation.
extern __thread uint3 threadIdx;
extern __thread uint3 blockIdx;
extern __thread dim3 blockDim;
extern __thread dim3 gridDim;

inline constexpr int warpSize = 32;
