// Replaces ffi_src/stream.h: the CPU platform has no stream to ask XLA for, and the emulator needs none.
#pragma once

#include <cuda_runtime.h>

#include <optional>

#include "xla/ffi/api/ffi.h"

namespace convgrad::cuda {

struct StreamContext {};

}  // namespace convgrad::cuda

template <>
struct xla::ffi::CtxDecoding<convgrad::cuda::StreamContext> {
  using Type = cudaStream_t;
  static std::optional<Type> Decode(const XLA_FFI_Api*, XLA_FFI_ExecutionContext*, DiagnosticEngine&) {
    return cudaStream_t{};
  }
};
