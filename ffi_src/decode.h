// Decodes FFI buffers and attributes into one checked, plain problem. Nothing past this point checks again,
// so everything is checked here: what does not fit throws InvalidArgument before any memory is touched.
#pragma once

#include <cstdint>
#include <stdexcept>
#include <string_view>

#include "common_src/batch_norm.h"
#include "common_src/epilogue.h"
#include "common_src/problem.h"
#include "xla/ffi/api/ffi.h"

namespace convgrad {

namespace ffi = xla::ffi;

// The handler turns this into an INVALID_ARGUMENT status.
struct InvalidArgument : std::invalid_argument {
  using std::invalid_argument::invalid_argument;
};

// Decodes a convolution. x, w and y are named by their role in y = fprop(x, w), whichever of them is the
// result of this call. Attributes: stride, pad_lo, input_dilation, filter_dilation (one entry per spatial
// axis), groups; x_spec and y_spec (batch, channel, spatial...) and w_spec (out, in, spatial...), which
// assign roles to logical dimensions. Memory is channels-last whatever the logical order. All arrays have one
// dtype, except that the result of 16-bit operands may be f32.
enum class ConvArray { kX, kW, kY };
ConvProblem decode_conv(const ffi::Dictionary& attributes, ffi::AnyBuffer x, ffi::AnyBuffer w,
                        ffi::AnyBuffer y, ConvArray result);

// Decodes pooling. Attributes: window (taps per axis), stride, pad_lo, filter_dilation, count_include_pad,
// and spec (batch, channel, spatial...), which assigns roles to the logical dimensions of x, y and positions.
// Memory is channels-last whatever the logical order.
PoolProblem decode_pool(const ffi::Dictionary& attributes, ffi::AnyBuffer x, ffi::AnyBuffer y);
// Also decodes the attribute "sum": sums of windows are wanted instead of means.
PoolProblem decode_avg_pool(const ffi::Dictionary& attributes, ffi::AnyBuffer x, ffi::AnyBuffer y);
// Also decodes the attribute "position_rule": "first_maximum", "select_and_scatter" or "select_and_gather".
PoolProblem decode_max_pool_argmax(const ffi::Dictionary& attributes, ffi::AnyBuffer x, ffi::AnyBuffer y);

// Decode the calls that take positions, which are int32 and have y's shape except for the batch. The batches
// of both operands divide the result's.
PoolProblem decode_max_pool_grad(const ffi::Dictionary& attributes, ffi::AnyBuffer dy,
                                 ffi::AnyBuffer position, ffi::AnyBuffer dx);
PoolProblem decode_max_pool_select(const ffi::Dictionary& attributes, ffi::AnyBuffer t,
                                   ffi::AnyBuffer position, ffi::AnyBuffer selected);

// Decodes dy of any rank, and db with one entry per channel. Attribute: channel_axis.
BiasProblem decode_bias(const ffi::Dictionary& attributes, ffi::AnyBuffer dy, ffi::AnyBuffer db);

// Decodes x of any rank, whose first dimension is the groups. Attributes: channel_axis, which is not the
// first one, and activation: "none", "relu" or "relu6".
NormProblem decode_norm(const ffi::Dictionary& attributes, ffi::AnyBuffer x);

// Returns an array of batch norm after checking that it has x's shape and dtype.
void* checked_like(ffi::AnyBuffer array, ffi::AnyBuffer x);
// Returns an array [groups, channels] of the type that sums run in.
void* checked_channels(ffi::AnyBuffer array, const NormProblem&);

// Returns a convolution's bias, or its gradient: one number per output channel, of the dtype of all arrays.
void* checked_bias(ffi::AnyBuffer bias, const ConvProblem&, ffi::AnyBuffer y);

// Decodes the attribute "relu", without a bias.
Epilogue decode_epilogue(const ffi::Dictionary& attributes, const ConvProblem&);
// Decodes the attribute "relu" and a bias.
Epilogue decode_epilogue(const ffi::Dictionary& attributes, const ConvProblem&, ffi::AnyBuffer y,
                         ffi::AnyBuffer bias);

// Decodes the attribute "kernel": the name of a kernel, or "auto" for the plan's choice.
std::string_view decode_kernel(const ffi::Dictionary& attributes);

// Decodes the attribute "below_highest": the precision is below HIGHEST. Then CUDA may multiply f32 with 10
// bits of mantissa, as TF32, and the CPU may add its sums in Winograd's form.
bool decode_below_highest(const ffi::Dictionary& attributes);

// Returns the positions after checking that they are int32 and have y's shape.
int32_t* checked_position(ffi::AnyBuffer position, ffi::AnyBuffer y);

// Returns the workspace after checking that it holds at least `bytes`.
void* checked_workspace(ffi::AnyBuffer workspace, int64_t bytes);

}  // namespace convgrad
