#include "ffi_src/decode.h"

#include <sstream>
#include <string>

namespace convgrad {
namespace {

using Dimensions = ffi::Span<const int64_t>;

// Sizes and attributes within these bounds keep every o * stride + r * filter_dilation - pad_lo, and its
// transpose, within 64 bits.
constexpr int64_t kMaxSize = (int64_t{1} << 31) - 1;
constexpr int64_t kMaxStep = (int64_t{1} << 30) - 1;
constexpr int64_t kMaxPad = int64_t{1} << 61;

template <typename... Parts>
[[noreturn]] void fail(const Parts&... parts) {
  std::ostringstream message;
  message << "jax_convgrad: ";
  (message << ... << parts);
  throw InvalidArgument(message.str());
}

std::string text(Dimensions values) {
  std::ostringstream out;
  out << "[";
  for (size_t i = 0; i < values.size(); ++i) out << (i ? ", " : "") << values[i];
  out << "]";
  return out.str();
}

DType decode_dtype(ffi::AnyBuffer buffer) {
  switch (buffer.element_type()) {
    case ffi::DataType::F32:
      return DType::kF32;
    case ffi::DataType::F64:
      return DType::kF64;
    case ffi::DataType::BF16:
      return DType::kBF16;
    case ffi::DataType::F16:
      return DType::kF16;
    default:
      fail("buffers must be f32, f64, bf16 or f16");
  }
}

template <typename T>
T decode_attribute(const ffi::Dictionary& attributes, std::string_view name, std::string_view type) {
  const ffi::ErrorOr<T> value = attributes.get<T>(name);
  if (!value.has_value()) fail("attribute ", name, " must be given as ", type);
  return *value;
}

// Decodes an array attribute with one entry per axis, each in [least, most].
Dimensions decode_per_axis(const ffi::Dictionary& attributes, std::string_view name, size_t axes,
                           int64_t least, int64_t most) {
  const auto values = decode_attribute<Dimensions>(attributes, name, "an int64 array");
  if (values.size() != axes) fail(name, " has ", values.size(), " entries for ", axes, " spatial axes");
  for (int64_t value : values) {
    if (value < least || value > most)
      fail(name, " is ", text(values), ", each must be in [", least, ", ", most, "]");
  }
  return values;
}

// Decodes the roles of a buffer's logical dimensions: a permutation of them.
Dimensions decode_spec(const ffi::Dictionary& attributes, std::string_view name, ffi::AnyBuffer buffer) {
  const auto spec = decode_attribute<Dimensions>(attributes, name, "an int64 array");
  const size_t rank = buffer.dimensions().size();
  uint64_t seen = 0;
  for (int64_t dimension : spec) {
    if (dimension >= 0 && dimension < static_cast<int64_t>(rank)) seen |= uint64_t{1} << dimension;
  }
  if (spec.size() != rank || seen != (uint64_t{1} << rank) - 1)
    fail(name, " is ", text(spec), ", which is no permutation of ", rank, " dimensions");
  return spec;
}

void check_sizes(ffi::AnyBuffer buffer) {
  for (int64_t size : buffer.dimensions()) {
    if (size < 0 || size > kMaxSize)
      fail("a buffer is ", text(buffer.dimensions()), ", each size must be below 2^31");
  }
}

}  // namespace

ConvProblem decode_conv(const ffi::Dictionary& attributes, ffi::AnyBuffer x, ffi::AnyBuffer w,
                        ffi::AnyBuffer y, ConvArray result) {
  const size_t rank = x.dimensions().size();
  if (rank < 2 || rank > 2 + kAxes || w.dimensions().size() != rank || y.dimensions().size() != rank)
    fail("x ", text(x.dimensions()), ", w ", text(w.dimensions()), " and y ", text(y.dimensions()),
         " must have one rank, 2 to 5");
  const ffi::AnyBuffer arrays[] = {x, w, y};
  const int place = static_cast<int>(result);
  const DType dtype = decode_dtype(arrays[(place + 1) % 3]), result_dtype = decode_dtype(arrays[place]);
  const bool unrounded = bytes_of(dtype) == 2 && result_dtype == DType::kF32;
  if (decode_dtype(arrays[(place + 2) % 3]) != dtype || (result_dtype != dtype && !unrounded))
    fail("x, w and y must have one dtype, except that 16-bit operands may have an f32 result");
  for (const ffi::AnyBuffer& buffer : arrays) check_sizes(buffer);

  ConvProblem problem;
  problem.dtype = dtype;
  problem.unrounded = unrounded;
  const size_t axes = rank - 2;
  const auto stride = decode_per_axis(attributes, "stride", axes, 1, kMaxStep);
  const auto pad_lo = decode_per_axis(attributes, "pad_lo", axes, -kMaxPad, kMaxPad);
  const auto input_dilation = decode_per_axis(attributes, "input_dilation", axes, 1, kMaxStep);
  const auto filter_dilation = decode_per_axis(attributes, "filter_dilation", axes, 1, kMaxStep);
  const auto x_spec = decode_spec(attributes, "x_spec", x);
  const auto w_spec = decode_spec(attributes, "w_spec", w);
  const auto y_spec = decode_spec(attributes, "y_spec", y);
  const auto groups = decode_attribute<int64_t>(attributes, "groups", "an int64");

  problem.batch = x.dimensions()[x_spec[0]];
  problem.in_channels = x.dimensions()[x_spec[1]];
  problem.out_channels = w.dimensions()[w_spec[0]];
  problem.groups = groups;
  if (y.dimensions()[y_spec[0]] != problem.batch)
    fail("y's batch is ", y.dimensions()[y_spec[0]], ", x's is ", problem.batch);
  if (y.dimensions()[y_spec[1]] != problem.out_channels)
    fail("y has ", y.dimensions()[y_spec[1]], " channels, w gives ", problem.out_channels);
  if (groups < 1 || problem.in_channels % groups != 0 || problem.out_channels % groups != 0)
    fail("groups is ", groups, ", it must divide ", problem.in_channels, " and ", problem.out_channels,
         " channels");
  if (w.dimensions()[w_spec[1]] != problem.group_in())
    fail("w takes ", w.dimensions()[w_spec[1]], " input channels, a group of x has ", problem.group_in());
  for (size_t a = 0; a < axes; ++a) {
    problem.axis[kAxes - axes + a] = Axis{x.dimensions()[x_spec[2 + a]],
                                          w.dimensions()[w_spec[2 + a]],
                                          y.dimensions()[y_spec[2 + a]],
                                          stride[a],
                                          pad_lo[a],
                                          input_dilation[a],
                                          filter_dilation[a]};
  }
  return problem;
}

namespace {

// What all pooling calls share, except the batch; and which dimension the batch is.
struct Windows {
  PoolProblem problem;
  size_t batch;
};

Windows decode_windows(const ffi::Dictionary& attributes, ffi::AnyBuffer x, ffi::AnyBuffer y) {
  const Dimensions in = x.dimensions(), out = y.dimensions();
  if (in.size() < 2 || in.size() > 2 + kAxes || out.size() != in.size())
    fail("x ", text(in), " and y ", text(out), " must have one rank, 2 to 5");
  const auto spec = decode_spec(attributes, "spec", x);
  if (in[spec[1]] != out[spec[1]]) fail("x ", text(in), " and y ", text(out), " must agree in channels");
  if (y.element_type() != x.element_type()) fail("x and y must have one dtype");
  check_sizes(x);
  check_sizes(y);

  PoolProblem problem;
  problem.dtype = decode_dtype(x);
  const size_t axes = in.size() - 2;
  const auto window = decode_per_axis(attributes, "window", axes, 1, kMaxSize);
  const auto stride = decode_per_axis(attributes, "stride", axes, 1, kMaxStep);
  const auto pad_lo = decode_per_axis(attributes, "pad_lo", axes, -kMaxPad, kMaxPad);
  const auto filter_dilation = decode_per_axis(attributes, "filter_dilation", axes, 1, kMaxStep);
  const auto count_include_pad = decode_attribute<bool>(attributes, "count_include_pad", "a bool");
  problem.channels = in[spec[1]];
  problem.count_include_pad = count_include_pad;
  int64_t positions = 1, taps = 1;
  for (size_t a = 0; a < axes; ++a) {
    const int64_t input = in[spec[2 + a]];
    problem.axis[kAxes - axes + a] =
        Axis{input, window[a], out[spec[2 + a]], stride[a], pad_lo[a], 1, filter_dilation[a]};
    // Sizes are below 2^31, so the first product past the bound still fits 64 bits.
    positions *= input;
    taps *= window[a];
    if (positions > kMaxSize) fail("x ", text(in), " has 2^31 positions or more");
    if (taps > kMaxSize) fail("window ", text(window), " has 2^31 taps or more");
  }
  return {problem, static_cast<size_t>(spec[0])};
}

PoolProblem with_batches(Windows windows, ffi::AnyBuffer operand, ffi::AnyBuffer position, ffi::AnyBuffer y,
                         ffi::AnyBuffer result) {
  if (position.element_type() != ffi::DataType::S32) fail("position must be int32");
  const Dimensions at = position.dimensions(), shape = y.dimensions();
  bool fits = at.size() == shape.size();
  for (size_t d = 0; fits && d < at.size(); ++d) fits = d == windows.batch || at[d] == shape[d];
  if (!fits) fail("position is ", text(at), ", y is ", text(shape));
  PoolProblem& problem = windows.problem;
  problem.batch = result.dimensions()[windows.batch];
  problem.operand_batch = operand.dimensions()[windows.batch];
  problem.position_batch = at[windows.batch];
  for (const int64_t images : {problem.operand_batch, problem.position_batch}) {
    if (images != problem.batch && (images == 0 || problem.batch % images != 0))
      fail("an operand's batch of ", images, " does not divide the result's of ", problem.batch);
  }
  return problem;
}

}  // namespace

PoolProblem decode_pool(const ffi::Dictionary& attributes, ffi::AnyBuffer x, ffi::AnyBuffer y) {
  auto [problem, batch] = decode_windows(attributes, x, y);
  if (x.dimensions()[batch] != y.dimensions()[batch])
    fail("x ", text(x.dimensions()), " and y ", text(y.dimensions()), " must agree in batch");
  problem.batch = problem.operand_batch = problem.position_batch = x.dimensions()[batch];
  return problem;
}

PoolProblem decode_avg_pool(const ffi::Dictionary& attributes, ffi::AnyBuffer x, ffi::AnyBuffer y) {
  PoolProblem problem = decode_pool(attributes, x, y);
  problem.sum = decode_attribute<bool>(attributes, "sum", "a bool");
  return problem;
}

PoolProblem decode_max_pool_argmax(const ffi::Dictionary& attributes, ffi::AnyBuffer x, ffi::AnyBuffer y) {
  PoolProblem problem = decode_pool(attributes, x, y);
  const auto rule = decode_attribute<std::string_view>(attributes, "position_rule", "a string");
  if (rule == "select_and_scatter") {
    problem.position_rule = PositionRule::kSelectAndScatter;
  } else if (rule == "select_and_gather") {
    problem.position_rule = PositionRule::kSelectAndGather;
  } else if (rule != "first_maximum") {
    fail("position_rule is \"", rule,
         "\", it must be \"first_maximum\", \"select_and_scatter\" or \"select_and_gather\"");
  }
  return problem;
}

PoolProblem decode_max_pool_grad(const ffi::Dictionary& attributes, ffi::AnyBuffer dy,
                                 ffi::AnyBuffer position, ffi::AnyBuffer dx) {
  return with_batches(decode_windows(attributes, dx, dy), dy, position, dy, dx);
}

PoolProblem decode_max_pool_select(const ffi::Dictionary& attributes, ffi::AnyBuffer t,
                                   ffi::AnyBuffer position, ffi::AnyBuffer selected) {
  return with_batches(decode_windows(attributes, t, selected), t, position, selected, selected);
}

BiasProblem decode_bias(const ffi::Dictionary& attributes, ffi::AnyBuffer dy, ffi::AnyBuffer db) {
  const auto channel_axis = decode_attribute<int64_t>(attributes, "channel_axis", "an int64");
  const int64_t rank = static_cast<int64_t>(dy.dimensions().size());
  if (channel_axis < 0 || channel_axis >= rank)
    fail("channel_axis is ", channel_axis, ", dy has ", rank, " dimensions");
  check_sizes(dy);
  if (db.element_type() != dy.element_type()) fail("dy and db must have one dtype");
  BiasProblem problem;
  problem.dtype = decode_dtype(dy);
  problem.channels = dy.dimensions()[channel_axis];
  if (db.dimensions().size() != 1 || db.dimensions()[0] != problem.channels)
    fail("db is ", text(db.dimensions()), ", dy has ", problem.channels, " channels");
  for (int64_t d = 0; d < rank; ++d) {
    if (d != channel_axis) problem.rows *= dy.dimensions()[d];
  }
  return problem;
}

NormProblem decode_norm(const ffi::Dictionary& attributes, ffi::AnyBuffer x) {
  const auto channel_axis = decode_attribute<int64_t>(attributes, "channel_axis", "an int64");
  const auto activation = decode_attribute<std::string_view>(attributes, "activation", "a string");
  const int64_t rank = static_cast<int64_t>(x.dimensions().size());
  if (channel_axis < 1 || channel_axis >= rank)
    fail("channel_axis is ", channel_axis, ", x has ", rank, " dimensions, of which the first is the groups");
  check_sizes(x);
  NormProblem problem;
  problem.dtype = decode_dtype(x);
  problem.groups = x.dimensions()[0];
  problem.channels = x.dimensions()[channel_axis];
  for (int64_t d = 1; d < rank; ++d) {
    if (d != channel_axis) problem.rows *= x.dimensions()[d];
  }
  if (activation == "relu") {
    problem.activation = Activation::kRelu;
  } else if (activation == "relu6") {
    problem.activation = Activation::kRelu6;
  } else if (activation != "none") {
    fail("activation is \"", activation, "\", it must be \"none\", \"relu\" or \"relu6\"");
  }
  return problem;
}

void* checked_like(ffi::AnyBuffer array, ffi::AnyBuffer x) {
  if (!(array.dimensions() == x.dimensions()) || array.element_type() != x.element_type())
    fail("x, y and their gradients must have one shape and dtype, not ", text(x.dimensions()), " and ",
         text(array.dimensions()));
  return array.untyped_data();
}

void* checked_channels(ffi::AnyBuffer array, const NormProblem& problem) {
  const DType dtype = problem.dtype == DType::kF64 ? DType::kF64 : DType::kF32;
  const Dimensions shape = array.dimensions();
  if (decode_dtype(array) != dtype || shape.size() != 2 || shape[0] != problem.groups ||
      shape[1] != problem.channels)
    fail("what belongs to channels must be ", dtype == DType::kF64 ? "f64" : "f32", " of shape [",
         problem.groups, ", ", problem.channels, "], not ", text(shape));
  return array.untyped_data();
}

std::string_view decode_kernel(const ffi::Dictionary& attributes) {
  return decode_attribute<std::string_view>(attributes, "kernel", "a string");
}

void* checked_bias(ffi::AnyBuffer bias, const ConvProblem& problem, ffi::AnyBuffer y) {
  if (problem.unrounded) fail("where b or db is, x, w and y must have one dtype");
  if (bias.element_type() != y.element_type()) fail("b and y must have one dtype");
  if (bias.dimensions().size() != 1 || bias.dimensions()[0] != problem.out_channels)
    fail("b is ", text(bias.dimensions()), ", y has ", problem.out_channels, " channels");
  return bias.untyped_data();
}

Epilogue decode_epilogue(const ffi::Dictionary& attributes, const ConvProblem& problem) {
  return {nullptr, decode_attribute<bool>(attributes, "relu", "a bool"), problem.unrounded};
}

Epilogue decode_epilogue(const ffi::Dictionary& attributes, const ConvProblem& problem, ffi::AnyBuffer y,
                         ffi::AnyBuffer bias) {
  Epilogue epilogue = decode_epilogue(attributes, problem);
  epilogue.bias = checked_bias(bias, problem, y);
  return epilogue;
}

bool decode_below_highest(const ffi::Dictionary& attributes) {
  return decode_attribute<bool>(attributes, "below_highest", "a bool");
}

int32_t* checked_position(ffi::AnyBuffer position, ffi::AnyBuffer y) {
  if (position.element_type() != ffi::DataType::S32) fail("position must be int32");
  if (!(position.dimensions() == y.dimensions()))
    fail("position is ", text(position.dimensions()), ", y is ", text(y.dimensions()));
  return position.typed_data<int32_t>();
}

void* checked_workspace(ffi::AnyBuffer workspace, int64_t bytes) {
  // uint8, because XLA packs several elements of smaller types into a byte.
  if (workspace.element_type() != ffi::DataType::U8) fail("the workspace must be uint8");
  const int64_t given = static_cast<int64_t>(workspace.size_bytes());
  if (given < bytes) fail("the workspace has ", given, " bytes, the kernel needs ", bytes);
  return workspace.untyped_data();
}

}  // namespace convgrad
