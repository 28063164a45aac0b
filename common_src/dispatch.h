// Turns the dtype of a problem into the C++ type that stores it.
#pragma once

#include "common_src/number.h"
#include "common_src/problem.h"

namespace convgrad {

template <typename T>
struct StoredAs {
  using type = T;
};

// Calls `use` with StoredAs<float>, <double>, <BFloat16> or <Float16>.
template <typename Use>
auto dispatch(DType dtype, Use&& use) {
  switch (dtype) {
    case DType::kF64:
      return use(StoredAs<double>{});
    case DType::kBF16:
      return use(StoredAs<BFloat16>{});
    case DType::kF16:
      return use(StoredAs<Float16>{});
    case DType::kF32:
      break;
  }
  return use(StoredAs<float>{});
}

}  // namespace convgrad
