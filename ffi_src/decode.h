// From FFI buffers and attributes to one checked, plain problem. Nothing past this point is distrusted,
// so everything is distrusted here: what does not fit throws InvalidArgument before any memory is touched.
#pragma once

#include <cstdint>
#include <stdexcept>
#include <string_view>

#include "common_src/epilogue.h"
#include "common_src/problem.h"
#include "xla/ffi/api/ffi.h"

namespace convgrad {

namespace ffi = xla::ffi;

// Becomes an INVALID_ARGUMENT status at the handler's edge.
struct InvalidArgument : std::invalid_argument {
  using std::invalid_argument::invalid_argument;
};

// x, w and y by their role in y = fprop(x, w), whichever of them is the result of this call.
// Attributes: stride, pad_lo, input_dilation, filter_dilation (one entry a spatial axis), groups;
// x_spec and y_spec (batch, channel, spatial...) and w_spec (out, in, spatial...): which logical
// dimension plays which part. Memory is channels-last whatever the logical order. They have one dtype, but
// for a result of f32 out of 16-bit operands.
enum class ConvArray { kX, kW, kY };
ConvProblem decode_conv(const ffi::Dictionary& attributes, ffi::AnyBuffer x, ffi::AnyBuffer w,
                        ffi::AnyBuffer y, ConvArray result);

// Attributes: window (taps per axis), stride, pad_lo, filter_dilation, count_include_pad, and spec (batch,
// channel, spatial...): which logical dimension of x, y and positions plays which part. Memory is
// channels-last whatever the logical order.
PoolProblem decode_pool(const ffi::Dictionary& attributes, ffi::AnyBuffer x, ffi::AnyBuffer y);
// The same with the attribute "sum": whether a window's sum is wanted, and not its mean.
PoolProblem decode_avg_pool(const ffi::Dictionary& attributes, ffi::AnyBuffer x, ffi::AnyBuffer y);
// The same with the attribute "position_rule": "first_maximum", "select_and_scatter" or "select_and_gather".
PoolProblem decode_max_pool_argmax(const ffi::Dictionary& attributes, ffi::AnyBuffer x, ffi::AnyBuffer y);

// The same for the calls that take positions, int32 and shaped as y too, but for the batch: those of both
// operands divide the result's.
PoolProblem decode_max_pool_grad(const ffi::Dictionary& attributes, ffi::AnyBuffer dy,
                                 ffi::AnyBuffer position, ffi::AnyBuffer dx);
PoolProblem decode_max_pool_select(const ffi::Dictionary& attributes, ffi::AnyBuffer t,
                                   ffi::AnyBuffer position, ffi::AnyBuffer selected);

// dy of any rank, db of one entry a channel. Attribute: channel_axis.
BiasProblem decode_bias(const ffi::Dictionary& attributes, ffi::AnyBuffer dy, ffi::AnyBuffer db);

// A convolution's bias or its gradient: one number an output channel, of the dtype of all arrays.
void* checked_bias(ffi::AnyBuffer bias, const ConvProblem&, ffi::AnyBuffer y);

// The attribute "relu", and no bias.
Epilogue decode_epilogue(const ffi::Dictionary& attributes, const ConvProblem&);
// The same with a bias.
Epilogue decode_epilogue(const ffi::Dictionary& attributes, const ConvProblem&, ffi::AnyBuffer y,
                         ffi::AnyBuffer bias);

// The attribute "kernel": which kernel serves the call, "auto" for the plan's own choice.
std::string_view decode_kernel(const ffi::Dictionary& attributes);

// The attribute "tf32": whether f32 may be multiplied with 10 bits of mantissa.
bool decode_tf32(const ffi::Dictionary& attributes);

// `position` must be int32 and shaped as y.
int32_t* checked_position(ffi::AnyBuffer position, ffi::AnyBuffer y);

// `workspace` must hold at least `bytes`.
void* checked_workspace(ffi::AnyBuffer workspace, int64_t bytes);

}  // namespace convgrad
