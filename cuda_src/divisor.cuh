// Divides by a number that is known at launch with a multiplication and a shift. The compiler's general
// integer division is a subroutine of some twenty instructions.
//
// With 2^s >= d > 2^(s-1) and m = floor(2^32 * (2^s - d) / d) + 1, every n below 2^31 satisfies
//
//     n / d = (floor(n * m / 2^32) + n) / 2^s        (Granlund and Montgomery, 1994)
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

namespace convgrad::cuda {

class Divisor {
 public:
  Divisor() = default;
  // 1 <= d < 2^31
  explicit Divisor(int64_t d) : d_(static_cast<int32_t>(d)) {
    while ((int64_t{1} << shift_) < d) ++shift_;
    multiplier_ = static_cast<uint32_t>((((int64_t{1} << shift_) - d) << 32) / d + 1);
  }

  __host__ __device__ int32_t value() const { return d_; }

  // n >= 0
  __device__ __forceinline__ int32_t quotient(int32_t n) const {
    const uint32_t u = static_cast<uint32_t>(n);
    return static_cast<int32_t>((high_half(u, multiplier_) + u) >> shift_);
  }
  // Returns n / d and sets n to n % d.
  __device__ __forceinline__ int32_t split(int32_t& n) const {
    const int32_t q = quotient(n);
    n -= q * d_;
    return q;
  }
  __device__ __forceinline__ int32_t rest(int32_t n) const { return n - quotient(n) * d_; }
  __device__ __forceinline__ int32_t quotient_up(int32_t n) const { return quotient(n + d_ - 1); }

 private:
  // Host code that makes divisors for a launch includes this header too and has no __umulhi.
  __device__ __forceinline__ static uint32_t high_half(uint32_t a, uint32_t b) {
#ifdef __CUDA_ARCH__
    return __umulhi(a, b);
#else
    return static_cast<uint32_t>((uint64_t{a} * b) >> 32);
#endif
  }

  int32_t d_ = 1;
  uint32_t multiplier_ = 1;
  int32_t shift_ = 0;
};

}  // namespace convgrad::cuda
