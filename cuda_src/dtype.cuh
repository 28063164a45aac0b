// From a DType known at run time to a Stored type known to the compiler.
#pragma once

#include <cuda_runtime.h>

#include "ffi_src/number.h"

namespace convgrad::cuda {

template <typename T>
struct StoredTag {
  using Stored = T;
};

// Calls launch(StoredTag<Stored>{}) and returns its error.
template <typename Launch>
cudaError_t with_stored(DType dtype, Launch&& launch) {
  switch (dtype) {
    case DType::kF32:
      return launch(StoredTag<float>{});
    case DType::kF64:
      return launch(StoredTag<double>{});
    case DType::kBF16:
      return launch(StoredTag<BFloat16>{});
    case DType::kF16:
      return launch(StoredTag<Float16>{});
  }
  return cudaErrorInvalidValue;
}

}  // namespace convgrad::cuda
