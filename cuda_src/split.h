// Long sums in parts: part j adds the terms [j * length, (j+1) * length), then the parts are added in order.
// A pure function of the problem, so that every device gives the same bits.
#pragma once

#include <cstdint>

#include "ffi_src/problem.h"

namespace convgrad::cuda {

struct Split {
  int64_t parts;
  int64_t length;  // terms a part; the last part may have fewer, or none
};

Split wgrad_split(const ConvProblem&);       // of the tiled kernel
Split gemm_wgrad_split(const ConvProblem&);  // of the staged one

}  // namespace convgrad::cuda
