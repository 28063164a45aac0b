// From values to the wgmma kernels' template arguments.
#pragma once

#include <cuda_runtime.h>

#include <type_traits>

#include "ffi_src/number.h"
#include "ffi_src/problem.h"

namespace convgrad::cuda {

// launch(stored, columns), each an object whose type says it.
template <typename Launch>
cudaError_t dispatch_wgmma(DType dtype, int columns, Launch launch) {
  const auto with = [&](auto stored) {
    if (columns == 256) return launch(stored, std::integral_constant<int, 256>{});
    if (columns == 128) return launch(stored, std::integral_constant<int, 128>{});
    return launch(stored, std::integral_constant<int, 64>{});
  };
  return dtype == DType::kBF16 ? with(BFloat16{}) : with(Float16{});
}

}  // namespace convgrad::cuda
