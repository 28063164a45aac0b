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

// How many calls have reached a handler of this process. A CUDA graph that is replayed makes none, which is
// how a test can tell replays from launches.
int64_t handler_calls();

}  // namespace convgrad::cuda
