// The stream on which XLA runs a CUDA call. (The emulator's platform has no stream; it replaces this header.)
#pragma once

#include <cuda_runtime.h>

#include "xla/ffi/api/ffi.h"

namespace convgrad::cuda {

using StreamContext = xla::ffi::PlatformStream<cudaStream_t>;

}  // namespace convgrad::cuda
