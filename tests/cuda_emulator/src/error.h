// Sets what cudaGetLastError() returns.
#pragma once

#include <string>

#include "cuda_emulator/runtime_api.h"

namespace cuda_emulator {

cudaError_t remember(cudaError_t);
// Reports a kernel that failed while it ran: cudaErrorLaunchFailure, with the message as its string.
cudaError_t remember_failure(const std::string& message);

}  // namespace cuda_emulator
