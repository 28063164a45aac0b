#include "cuda_src/pool/plan.h"

#include <initializer_list>
#include <stdexcept>
#include <string>

#include "common_src/integers.h"
#include "cuda_src/plan.h"

namespace convgrad::cuda {
namespace {

bool product_is_small(std::initializer_list<int64_t> factors) { return fits_bits(30, factors); }

bool fits_in_32_bits(const PoolProblem& p) {
  const auto& [a, b, c] = p.axis;
  if (!product_is_small({a.input, b.input, c.input, p.channels}) ||
      !product_is_small({a.output, b.output, c.output, p.channels}) ||
      !product_is_small({p.batch, a.input, b.input}) || !product_is_small({p.batch, a.output, b.output}))
    return false;
  for (const Axis& axis : p.axis) {
    // Every o*stride + r*filter_dilation - pad_lo, and the square of the stride (TiedOutputs), fit 32 bits.
    if (!product_is_small({axis.output, axis.stride}) ||
        !product_is_small({axis.taps, axis.filter_dilation, 2}) || !fits_bits(29, {axis.pad_lo}) ||
        !fits_bits(15, {axis.stride}))
      return false;
  }
  return true;
}

}  // namespace

PoolKernel pool_kernel_named(std::string_view name) {
  if (name == "vector") return PoolKernel::kVector;
  try {
    return kernel_named(name) == Kernel::kReference ? PoolKernel::kReference : PoolKernel::kVector;
  } catch (const std::invalid_argument& error) {
    throw std::invalid_argument(std::string(error.what()) + ", and for pooling and bgrad \"vector\"");
  }
}

PoolKernel choose_kernel(const PoolProblem& p, PoolKernel requested) {
  return fits_in_32_bits(p) ? requested : PoolKernel::kReference;
}

}  // namespace convgrad::cuda
