// Replaces CUDA's header of the same name, so that a host compiler compiles .cu files unchanged.
#pragma once

#include "cuda_emulator/builtin_variables.h"
#include "cuda_emulator/launch.h"
#include "cuda_emulator/math.h"
#include "cuda_emulator/qualifiers.h"
#include "cuda_emulator/runtime_api.h"
#include "cuda_emulator/synchronization.h"
#include "cuda_emulator/vector_types.h"
