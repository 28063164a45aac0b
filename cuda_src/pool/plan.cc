#include "cuda_src/pool/plan.h"

#include <initializer_list>

namespace convgrad::cuda {
namespace {

// Whether the product of sizes, each below 2^31, is below 2^30.
bool is_small(std::initializer_list<int64_t> sizes) {
  int64_t product = 1;
  for (const int64_t size : sizes) {
    product *= size;
    if (product >= int64_t{1} << 30) return false;
  }
  return true;
}

bool fits_in_32_bits(const PoolProblem& p) {
  const auto& [a, b, c] = p.axis;
  if (!is_small({a.input, b.input, c.input, p.channels}) ||
      !is_small({a.output, b.output, c.output, p.channels}) || !is_small({p.batch, a.input, b.input}) ||
      !is_small({p.batch, a.output, b.output}))
    return false;
  for (const Axis& axis : p.axis) {
    // Every o*stride + r*filter_dilation - pad_lo, and the square of the stride (TiedOutputs).
    if (!is_small({axis.output, axis.stride}) || !is_small({axis.taps, axis.filter_dilation, 2}) ||
        axis.pad_lo >= 1 << 29 || axis.pad_lo <= -(1 << 29) || axis.stride >= 1 << 15)
      return false;
  }
  return true;
}

}  // namespace

PoolKernel choose_kernel(const PoolProblem& p, PoolKernel requested) {
  return fits_in_32_bits(p) ? requested : PoolKernel::kReference;
}

}  // namespace convgrad::cuda
