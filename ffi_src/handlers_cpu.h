// The FFI handlers of the CPU ops, by name.
#pragma once

#include <map>
#include <string>

#include "xla/ffi/api/c_api.h"

namespace convgrad::cpu {

std::map<std::string, XLA_FFI_Handler*> handlers();

}  // namespace convgrad::cpu
