// Chooses the kernel of pooling and bgrad: a pure function of the problem.
#pragma once

#include <cstdint>
#include <string_view>

#include "common_src/problem.h"

namespace convgrad::cuda {

enum class PoolKernel : int8_t { kReference, kVector };

// Accepts "reference", "vector", or the name of a convolution kernel, which means "vector" for pooling and
// bgrad. Throws std::invalid_argument for others.
PoolKernel pool_kernel_named(std::string_view name);

// The vector kernels count positions and numbers of one image, and images and rows of the whole batch, in 32
// bits, because 64-bit arithmetic would take longer than the memory does. Larger problems use the reference
// kernels.
PoolKernel choose_kernel(const PoolProblem&, PoolKernel requested);

}  // namespace convgrad::cuda
