// Turns a number of columns into the wgmma kernels' template argument.
#pragma once

#include <cuda_runtime.h>

#include <type_traits>

namespace convgrad::cuda {

// Calls launch(columns) with an object whose type carries the number.
template <typename Launch>
cudaError_t dispatch_columns(int columns, Launch launch) {
  if (columns == 256) return launch(std::integral_constant<int, 256>{});
  if (columns == 128) return launch(std::integral_constant<int, 128>{});
  return launch(std::integral_constant<int, 64>{});
}

}  // namespace convgrad::cuda
