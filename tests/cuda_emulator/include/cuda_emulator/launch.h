// Emulates cudaLaunchKernelEx, the only way to start a kernel in plain C++.
#pragma once

#include <tuple>
#include <type_traits>
#include <utility>

#include "cuda_emulator/runtime_api.h"

namespace cuda_emulator {

// Runs call(context) once for every thread of the grid, as fibers of the calling OS thread.
cudaError_t launch(const cudaLaunchConfig_t*, const void* kernel, void (*call)(const void* context),
                   const void* context);

inline constexpr size_t kMaxParameterBytes = 4096;  // the limit of every device and driver

}  // namespace cuda_emulator

template <typename... Parameters, typename... Arguments>
cudaError_t cudaLaunchKernelEx(const cudaLaunchConfig_t* config, void (*kernel)(Parameters...),
                               Arguments&&... arguments) {
  static_assert((std::is_trivially_copyable_v<Parameters> && ...),
                "a kernel's arguments are copied as bytes");
  static_assert((sizeof(Parameters) + ... + 0) <= cuda_emulator::kMaxParameterBytes);
  struct Call {
    void (*kernel)(Parameters...);
    std::tuple<Parameters...> arguments;
  };
  const Call call{kernel, {std::forward<Arguments>(arguments)...}};
  const auto run_thread = [](const void* context) {
    const Call& call = *static_cast<const Call*>(context);
    std::apply(call.kernel, call.arguments);
  };
  return cuda_emulator::launch(config, reinterpret_cast<const void*>(kernel), run_thread, &call);
}
