// The CUDA ops by name, each an FFI handler.
#pragma once

#include <map>
#include <string>
#include <string_view>

#include "cuda_src/plan.h"
#include "xla/ffi/api/c_api.h"

namespace convgrad::cuda {

std::map<std::string, XLA_FFI_Handler*> handlers();

// "auto" or a kernel's name; anything else throws InvalidArgument.
ConvKernel kernel_named(std::string_view name);

}  // namespace convgrad::cuda
