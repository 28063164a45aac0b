// The CUDA ops by name, each an FFI handler.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "cuda_src/plan.h"
#include "xla/ffi/api/c_api.h"

namespace convgrad::cuda {

std::map<std::string, XLA_FFI_Handler*> handlers();

// Every convolution kernel that can be asked for by name.
const std::vector<std::pair<std::string, ConvKernel>>& kernels();

// "auto" or a kernel's name; anything else throws InvalidArgument.
ConvKernel kernel_named(std::string_view name);

// How many calls have reached a handler of this process. A CUDA graph that is replayed makes none, which is
// how a test can tell replays from launches.
int64_t handler_calls();

}  // namespace convgrad::cuda
