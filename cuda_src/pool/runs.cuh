// What the relation o*stride + r*filter_dilation - pad_lo = i ties to one position of an axis: a run of
// positions at equal steps, in the order of the taps. Its ends are computed once, so no tap is tested.
#pragma once

#include <cstdint>
#include <type_traits>

#include "common_src/long_sum.h"
#include "common_src/problem.h"
#include "common_src/relation.h"
#include "cuda_src/divisor.cuh"

namespace convgrad::cuda {

struct Run {
  int32_t first, count;
};

// Finds the inputs tied to an output o.
class TiedInputs {
 public:
  TiedInputs() = default;
  explicit TiedInputs(const Axis& axis)
      : input_(static_cast<int32_t>(axis.input)),
        taps_(static_cast<int32_t>(axis.taps)),
        stride_(static_cast<int32_t>(axis.stride)),
        pad_lo_(static_cast<int32_t>(axis.pad_lo)),
        dilation_(axis.filter_dilation) {}

  __host__ __device__ int32_t step() const { return dilation_.value(); }
  __host__ __device__ int32_t size() const { return input_; }

  __device__ __forceinline__ Run operator()(int32_t o) const {
    const int32_t i = o * stride_ - pad_lo_;  // of tap 0
    const int32_t begin = i < 0 ? dilation_.quotient_up(-i) : 0;
    const int32_t end = i < input_ ? min(dilation_.quotient_up(input_ - i), taps_) : 0;
    if (end <= begin) return {0, 0};
    return {i + begin * dilation_.value(), end - begin};
  }

 private:
  int32_t input_ = 1, taps_ = 1, stride_ = 1, pad_lo_ = 0;
  Divisor dilation_;
};

// Finds the outputs tied to an input i, in the order of the taps, which is from the last output to the first.
//
// With t = i + pad_lo and g = gcd(stride, dilation) there are outputs only if g divides t. Then the taps are
// those with r * (dilation/g) = t/g modulo stride/g: one in every stride/g taps, and from one to the next the
// output moves back by dilation/g.
class TiedOutputs {
 public:
  TiedOutputs() = default;
  explicit TiedOutputs(const Axis& axis)
      : output_(static_cast<int32_t>(axis.output)),
        taps_(static_cast<int32_t>(axis.taps)),
        pad_lo_(static_cast<int32_t>(axis.pad_lo)) {
    const Congruence taps(axis.filter_dilation, axis.stride);
    common_ = Divisor(taps.common);
    tap_step_ = Divisor(taps.step);
    output_step_ = Divisor(axis.filter_dilation / taps.common);
    inverse_ = static_cast<int32_t>(taps.inverse);
  }

  __host__ __device__ int32_t step() const { return -output_step_.value(); }
  __host__ __device__ int32_t size() const { return output_; }

  __device__ __forceinline__ Run operator()(int32_t i) const {
    int32_t t = i + pad_lo_;
    if (t < 0 || output_ == 0) return {0, 0};
    const int32_t quotient = common_.split(t);
    if (t != 0) return {0, 0};
    const int32_t r = tap_step_.rest(tap_step_.rest(quotient) * inverse_);
    if (r >= taps_) return {0, 0};
    const int32_t at = quotient - r * output_step_.value();
    if (at < 0) return {0, 0};
    const int32_t o = tap_step_.quotient(at);
    // Skip outputs past the end; stop at the last tap or at output 0.
    const int32_t begin = o < output_ ? 0 : output_step_.quotient_up(o - output_ + 1);
    const int32_t end = min(tap_step_.quotient_up(taps_ - r), output_step_.quotient(o) + 1);
    if (end <= begin) return {0, 0};
    return {o - begin * output_step_.value(), end - begin};
  }

 private:
  int32_t output_ = 1, taps_ = 1, pad_lo_ = 0;
  int32_t inverse_ = 0;  // of the dilation, modulo tap_step_
  Divisor common_, tap_step_, output_step_;
};

// The source of a window: what is tied to a position along each axis, and the distances in the image's
// memory.
template <typename Tied>
struct PoolSource {
  Tied tied[3];
  int32_t step[3];       // from one tied position to the next, as flat positions
  int32_t size1, size2;  // sizes of the inner axes
  int32_t channels;
  int64_t image;  // numbers

  PoolSource(const Axis (&axis)[kAxes], int64_t channels)
      : tied{Tied(axis[0]), Tied(axis[1]), Tied(axis[2])}, channels(static_cast<int32_t>(channels)) {
    size1 = tied[1].size();
    size2 = tied[2].size();
    // If a step exceeds 32 bits, no run is long enough to use it.
    step[0] = static_cast<int32_t>(int64_t{tied[0].step()} * (int64_t{size1} * size2));
    step[1] = static_cast<int32_t>(int64_t{tied[1].step()} * size2);
    step[2] = tied[2].step();
    image = int64_t{tied[0].size()} * size1 * size2 * channels;
  }
};

// The runs along the three axes of one result's window.
struct Window {
  Run run0, run1, run2;

  template <typename Tied>
  __device__ __forceinline__ Window(const PoolSource<Tied>& source, int32_t at0, int32_t at1, int32_t at2)
      : run0(source.tied[0](at0)), run1(source.tied[1](at1)), run2(source.tied[2](at2)) {}

  __device__ __forceinline__ int32_t count() const { return run0.count * run1.count * run2.count; }

  // Returns the flat position of the first.
  template <typename Tied>
  __device__ __forceinline__ int32_t first(const PoolSource<Tied>& source) const {
    return (run0.first * source.size1 + run1.first) * source.size2 + run2.first;
  }
};

// Calls visit(load(at), at) for every flat position of the window, in the order of the taps. Several loads
// are in flight together: all of a window of kTaps by kTaps that lies entirely on the source, otherwise a few
// in a row.
template <int kTaps, typename Tied, typename Load, typename Visit>
__device__ __forceinline__ void for_each_tied(const PoolSource<Tied>& source, const Window& window,
                                              const Load& load, const Visit& visit) {
  constexpr int kAhead = 4;
  using Loaded = decltype(load(0));
  const int32_t first = window.first(source);
  for (int32_t k0 = 0; k0 < window.run0.count; ++k0) {
    const int32_t at0 = first + k0 * source.step[0];
    if constexpr (kTaps > 0) {
      if (window.run1.count == kTaps && window.run2.count == kTaps) {
        Loaded ahead[kTaps * kTaps];
#pragma unroll
        for (int k = 0; k < kTaps * kTaps; ++k)
          ahead[k] = load(at0 + k / kTaps * source.step[1] + k % kTaps * source.step[2]);
#pragma unroll
        for (int k = 0; k < kTaps * kTaps; ++k)
          visit(ahead[k], at0 + k / kTaps * source.step[1] + k % kTaps * source.step[2]);
        continue;
      }
    }
    for (int32_t k1 = 0; k1 < window.run1.count; ++k1) {
      const int32_t at1 = at0 + k1 * source.step[1];
      for (int32_t k2 = 0; k2 < window.run2.count; k2 += kAhead) {
        Loaded ahead[kAhead];
#pragma unroll
        for (int k = 0; k < kAhead; ++k) {
          if (k2 + k < window.run2.count) ahead[k] = load(at1 + (k2 + k) * source.step[2]);
        }
#pragma unroll
        for (int k = 0; k < kAhead; ++k) {
          if (k2 + k < window.run2.count) visit(ahead[k], at1 + (k2 + k) * source.step[2]);
        }
      }
    }
  }
}

// Calls use(std::integral_constant<int, kTaps>) for for_each_tied(): 2 or 3 for windows of 2x2 or 3x3 with at
// most kSumRun taps, otherwise 0.
template <typename Use>
cudaError_t dispatch_taps(const PoolProblem& p, const Use& use) {
  const Axis &axis1 = p.axis[1], &axis2 = p.axis[2];
  if (p.taps() > kSumRun) return use(std::integral_constant<int, 0>{});
  if (axis1.taps == 2 && axis2.taps == 2) return use(std::integral_constant<int, 2>{});
  if (axis1.taps == 3 && axis2.taps == 3) return use(std::integral_constant<int, 3>{});
  return use(std::integral_constant<int, 0>{});
}

}  // namespace convgrad::cuda
