// Which of pooling's and bgrad's kernels serves a problem: a pure function of it.
#pragma once

#include <cstdint>

#include "common_src/problem.h"

namespace convgrad::cuda {

// By the FFI attribute "kernel": "reference", and "vector" for it and for every other kernel's name.
enum class PoolKernel : int8_t { kReference, kVector };

// The vector kernels count positions and numbers of one image, and images and rows of all, in 32 bits, since
// 64-bit arithmetic would take longer than the memory does. What is larger is served by the reference ones.
PoolKernel choose_kernel(const PoolProblem&, PoolKernel requested);

}  // namespace convgrad::cuda
