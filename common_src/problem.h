// Describes a convolution or pooling for every kernel.
//
// Along each spatial axis an input position i, a filter tap r and an output position o are tied by
//
//     o * stride + r * filter_dilation - pad_lo  =  i * input_dilation          (the relation)
//
// and each op is a sum of products over all tied triples:
//
//     fprop   y[n,o,k]  = sum over r, c of  x[n,i,c] * w[r,c,k]
//     dgrad   dx[n,i,c] = sum over r, k of dy[n,o,k] * w[r,c,k]
//     wgrad   dw[r,c,k] = sum over n, o of  x[n,i,c] * dy[n,o,k]
//
// There is one physical layout: activations [N, spatial..., C], filters [spatial..., C/groups, K], last axis
// contiguous. A problem with fewer than three spatial axes has leading axes of one position.
#pragma once

#include <cstdint>

#if defined(__CUDACC__)
#define CONVGRAD_HD __host__ __device__
#else
// Always inlined, for files that are compiled once per instruction set: the linker would keep only one copy
// of a function with a symbol, for all instruction sets.
#define CONVGRAD_HD __attribute__((always_inline))
#endif

namespace convgrad {

enum class DType : int8_t { kF32, kF64, kBF16, kF16 };

inline constexpr int64_t kDTypeBytes[] = {4, 8, 2, 2};
inline constexpr int64_t bytes_of(DType dtype) { return kDTypeBytes[static_cast<int>(dtype)]; }
// Returns the bytes of the type that sums run in.
inline constexpr int64_t bytes_of_sum(DType dtype) { return dtype == DType::kF64 ? 8 : 4; }

// What a convolution kernel computes.
enum class Op : int8_t { kFprop, kDgrad, kWgrad };

inline constexpr int kAxes = 3;
inline constexpr int64_t kNone = -1;  // "no position is tied to these two"

struct Axis {
  int64_t input = 1;   // number of input positions
  int64_t taps = 1;    // number of filter taps
  int64_t output = 1;  // number of output positions
  int64_t stride = 1;
  int64_t pad_lo = 0;  // may be negative (cropping)
  int64_t input_dilation = 1;
  int64_t filter_dilation = 1;

  // Returns the input position tied to output o and tap r, or kNone (padding, or between dilated inputs).
  CONVGRAD_HD int64_t input_at(int64_t o, int64_t r) const {
    const int64_t at = o * stride + r * filter_dilation - pad_lo;
    if (at < 0) return kNone;
    if (input_dilation == 1) return at < input ? at : kNone;  // avoids the divisions for most problems
    if (at % input_dilation != 0) return kNone;
    const int64_t i = at / input_dilation;
    return i < input ? i : kNone;
  }

  // Returns the output position tied to input i and tap r, or kNone (between strides, or past the ends).
  CONVGRAD_HD int64_t output_at(int64_t i, int64_t r) const {
    const int64_t at = i * input_dilation + pad_lo - r * filter_dilation;
    if (at < 0) return kNone;
    if (stride == 1) return at < output ? at : kNone;
    if (at % stride != 0) return kNone;
    const int64_t o = at / stride;
    return o < output ? o : kNone;
  }

  // Returns the relation with its sides swapped: i and o swap, stride and input_dilation swap, and tap r
  // becomes tap taps-1-r. dgrad is fprop over the transposed axes.
  CONVGRAD_HD Axis transpose() const {
    return Axis{output, taps,           input, input_dilation, (taps - 1) * filter_dilation - pad_lo,
                stride, filter_dilation};
  }
};

struct ConvProblem {
  DType dtype = DType::kF32;
  int64_t batch = 1;
  int64_t in_channels = 1;   // C, all groups together
  int64_t out_channels = 1;  // K, all groups together
  int64_t groups = 1;        // input group g meets only output group g
  Axis axis[kAxes];
  bool unrounded = false;  // the result of 16-bit operands is stored in f32, unrounded

  CONVGRAD_HD DType result_dtype() const { return unrounded ? DType::kF32 : dtype; }
  CONVGRAD_HD int64_t group_in() const { return in_channels / groups; }
  CONVGRAD_HD int64_t group_out() const { return out_channels / groups; }
  CONVGRAD_HD int64_t inputs() const { return axis[0].input * axis[1].input * axis[2].input; }
  CONVGRAD_HD int64_t taps() const { return axis[0].taps * axis[1].taps * axis[2].taps; }
  CONVGRAD_HD int64_t outputs() const { return axis[0].output * axis[1].output * axis[2].output; }

  CONVGRAD_HD ConvProblem transpose() const {
    return ConvProblem{dtype,       batch,  out_channels,
                       in_channels, groups, {axis[0].transpose(), axis[1].transpose(), axis[2].transpose()},
                       unrounded};
  }
};

// The position that max_pool reports for a window. The rules differ only in windows with a NaN or whose
// maximum is -infinity, where XLA's two formulations differ from the first maximum and from each other. Both
// replace the best value so far by the next tap unless best >= next, which is false if either is NaN.
// Select-and-scatter starts with the window's first tap and reads padding as -infinity; select-and-gather
// starts with -infinity at no position and skips padding.
enum class PositionRule : int8_t { kFirstMaximum, kSelectAndScatter, kSelectAndGather };

// Describes pooling, which runs over the same relation; the window's taps carry no weights.
//
//     max_pool       y[n,o,c]  = max over r of x[n,i,c];  position[n,o,c] = the first such i
//     max_pool_grad  dx[n,i,c] = sum over r of dy[n,o,c] where position[n,o,c] = i
//     avg_pool       y[n,o,c]  = (sum over r of x[n,i,c]) / count(o)
//     avg_pool_grad  dx[n,i,c] = sum over r of dy[n,o,c] / count(o)
//
// count(o) is the number of taps, or if count_include_pad is false the number of taps on the input. With
// `sum` the last two do not divide. "First" is in row-major order over the window. A position is the flat
// index over the spatial axes, (i0 * I1 + i1) * I2 + i2, as int32, and -1 if the whole window lies on
// padding.
//
// One of the two operands of max_pool_grad and max_pool_select may have fewer images than the result, a
// divisor of its batch: image n of the result reads that operand's image n modulo their number. So one choice
// of positions serves many dy without a copy.
struct PoolProblem {
  DType dtype = DType::kF32;
  int64_t batch = 1;
  int64_t operand_batch = 1;   // images of dy in max_pool_grad, of t in max_pool_select
  int64_t position_batch = 1;  // images of position in both
  int64_t channels = 1;
  bool count_include_pad = true;
  bool sum = false;
  PositionRule position_rule = PositionRule::kFirstMaximum;
  Axis axis[kAxes];

  CONVGRAD_HD int64_t inputs() const { return axis[0].input * axis[1].input * axis[2].input; }
  CONVGRAD_HD int64_t taps() const { return axis[0].taps * axis[1].taps * axis[2].taps; }
  CONVGRAD_HD int64_t outputs() const { return axis[0].output * axis[1].output * axis[2].output; }
};

// Describes db[c] = sum over rows of dy[row,c], whose rows are batch and positions together.
struct BiasProblem {
  DType dtype = DType::kF32;
  int64_t rows = 1;
  int64_t channels = 1;
};

// Returns the problem of the gradient of a convolution's bias.
inline BiasProblem bias_problem(const ConvProblem& p) {
  return {p.dtype, p.batch * p.outputs(), p.out_channels};
}

}  // namespace convgrad
