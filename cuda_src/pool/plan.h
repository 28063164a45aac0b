// Which of pooling's and bgrad's kernels serves a problem: a pure function of it.
#pragma once

#include <cstdint>
#include <string_view>

#include "common_src/problem.h"

namespace convgrad::cuda {

enum class PoolKernel : int8_t { kReference, kVector };

// "reference", "vector", or a convolution's kernel, with which pooling and bgrad are in vectors. Throws
// std::invalid_argument.
PoolKernel pool_kernel_named(std::string_view name);

// The vector kernels count positions and numbers of one image, and images and rows of all, in 32 bits, since
// 64-bit arithmetic would take longer than the memory does. What is larger is served by the reference ones.
PoolKernel choose_kernel(const PoolProblem&, PoolKernel requested);

}  // namespace convgrad::cuda
