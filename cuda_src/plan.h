// Which kernel serves a problem, and how its sums are split: pure functions of the problem.
#pragma once

#include <cstdint>

#include "ffi_src/problem.h"

namespace convgrad::cuda {

// Named by the FFI attribute "kernel": "auto", "direct", "tiled", "grouped".
enum class ConvKernel : int8_t { kAuto, kDirect, kTiled, kGrouped };

enum class ConvOp : int8_t { kFprop, kDgrad, kWgrad };

// What kAuto stands for; any other request is returned as it is. Throws std::invalid_argument where the
// kernel asked for does not serve the problem.
ConvKernel choose_kernel(const ConvProblem&, ConvOp, ConvKernel requested);

int64_t wgrad_workspace_bytes(const ConvProblem&, ConvKernel requested);
int64_t bgrad_workspace_bytes(const BiasProblem&);

}  // namespace convgrad::cuda
