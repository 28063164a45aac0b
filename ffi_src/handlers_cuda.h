// The FFI handlers of the CUDA ops, by name.
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

// Returns how many calls have reached a handler of this process. The replay of a CUDA graph makes no call, so
// a test can distinguish replays from launches.
int64_t handler_calls();

}  // namespace convgrad::cuda
