// The stream that XLA runs a CUDA call on. (The emulator, on whose platform there is none, has its own copy.)
#pragma once

#include <cuda_runtime.h>

#include "xla/ffi/api/ffi.h"

namespace convgrad::cuda {

using StreamContext = xla::ffi::PlatformStream<cudaStream_t>;

}  // namespace convgrad::cuda
