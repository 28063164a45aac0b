// The CPU's ops by name, each an FFI handler.
#pragma once

#include <map>
#include <string>

#include "xla/ffi/api/c_api.h"

namespace convgrad::cpu {

std::map<std::string, XLA_FFI_Handler*> handlers();

}  // namespace convgrad::cpu
