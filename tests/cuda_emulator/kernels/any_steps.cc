// Compares every kernel with the reference kernels on layers of random steps, most of whose outputs or taps
// are often tied to nothing. Operands are small integers, so that sums are the same in any order.
#include <algorithm>
#include <random>
#include <string>
#include <vector>

#include "check.h"
#include "common_src/dispatch.h"
#include "cuda_src/kernels.h"

using namespace selftest;
using namespace convgrad;
using cuda::Kernel;

namespace {

std::mt19937 generator(7);

int64_t draw(int64_t least, int64_t most) {
  return std::uniform_int_distribution<int64_t>(least, most)(generator);
}
int64_t draw_step() { return draw(0, 1) ? 1 : draw(0, 1) ? draw(2, 4) : draw(5, 40); }

Axis random_axis(int64_t most) {
  Axis axis;
  axis.input = draw(1, most);
  axis.taps = draw(1, most);
  axis.output = draw(1, 2 * most);
  axis.stride = draw_step();
  axis.pad_lo = draw(-10, 40);
  axis.input_dilation = draw_step();
  axis.filter_dilation = draw_step();
  return axis;
}

ConvProblem random_problem(DType dtype) {
  ConvProblem p;
  p.dtype = dtype;
  p.batch = draw(1, 3);
  p.groups = draw(0, 2) ? 1 : draw(2, 5);
  // Whole chunks, single channels, or any number.
  const int64_t kind = draw(0, 2);
  const int64_t in = kind == 0 ? 8 : kind == 1 ? 1 : draw(1, 6);
  const int64_t out = kind == 0 ? 8 : kind == 1 ? 1 : draw(1, 6);
  p.in_channels = p.groups * in;
  p.out_channels = p.groups * out;
  p.unrounded = bytes_of(dtype) == 2 && draw(0, 1);
  const int64_t axes = draw(1, 3);
  for (int a = 0; a < axes; ++a) p.axis[kAxes - 1 - a] = random_axis(axes == 1 ? 40 : 6);
  return p;
}

struct Array {
  std::vector<unsigned char> bytes;

  Array(int64_t count, DType dtype, bool filled) : bytes(count * bytes_of(dtype), 0xff) {
    if (!filled) return;
    dispatch(dtype, [&](auto tag) {
      using Stored = typename decltype(tag)::type;
      for (int64_t at = 0; at < count; ++at)
        reinterpret_cast<Stored*>(bytes.data())[at] = narrow<Stored>(static_cast<Sum<Stored>>(draw(-2, 2)));
      return 0;
    });
  }
  void* data() { return bytes.data(); }
};

struct Operands {
  Array x, w, dy, bias;
  explicit Operands(const ConvProblem& p)
      : x(p.batch * p.inputs() * p.in_channels, p.dtype, true),
        w(p.taps() * p.group_in() * p.out_channels, p.dtype, true),
        dy(p.batch * p.outputs() * p.out_channels, p.dtype, true),
        bias(p.out_channels, p.dtype, true) {}
};

std::vector<unsigned char> result_of(Op op, const ConvProblem& p, Kernel kernel, Operands& operands,
                                     Epilogue epilogue) {
  const cuda::Request request{kernel, false};
  Array workspace(cuda::conv_workspace_bytes(op, p, request), DType::kF64, false);
  const int64_t count = op == Op::kFprop   ? p.batch * p.outputs() * p.out_channels
                        : op == Op::kDgrad ? p.batch * p.inputs() * p.in_channels
                                           : p.taps() * p.group_in() * p.out_channels;
  Array result(count, p.result_dtype(), false);
  cudaError_t error = cudaSuccess;
  if (op == Op::kFprop)
    error = cuda::fprop(p, request, operands.x.data(), operands.w.data(), epilogue, result.data(),
                        workspace.data(), nullptr);
  else if (op == Op::kDgrad)
    error = cuda::dgrad(p, request, operands.dy.data(), operands.w.data(), result.data(), workspace.data(),
                        nullptr);
  else
    error = cuda::wgrad(p, request, operands.x.data(), operands.dy.data(), result.data(), workspace.data(),
                        nullptr);
  check(error == cudaSuccess, cudaGetErrorString(error));
  return result.bytes;
}

std::string text_of(const ConvProblem& p) {
  std::string text = "batch " + std::to_string(p.batch) + ", channels " + std::to_string(p.in_channels) +
                     " and " + std::to_string(p.out_channels) + ", groups " + std::to_string(p.groups);
  for (const Axis& a : p.axis) {
    text += ", {";
    for (const int64_t number :
         {a.input, a.taps, a.output, a.stride, a.pad_lo, a.input_dilation, a.filter_dilation})
      text += std::to_string(number) + " ";
    text += "}";
  }
  return text;
}

struct NamedKernel {
  const char* name;
  Kernel kernel;
};

// Returns how many calls a kernel has served.
int check_kernels(const ConvProblem& p, const std::vector<NamedKernel>& kernels) {
  int calls = 0;
  Operands operands(p);
  Epilogue epilogue;
  epilogue.unrounded = p.unrounded;
  if (draw(0, 1)) epilogue.bias = operands.bias.data();
  epilogue.relu = draw(0, 2) == 0;
  const char* names[] = {"fprop", "dgrad", "wgrad"};
  for (const Op op : {Op::kFprop, Op::kDgrad, Op::kWgrad}) {
    const auto expected = result_of(op, p, Kernel::kReference, operands, epilogue);
    for (const auto& [name, kernel] : kernels) {
      try {
        cuda::plan(op, p, {kernel, false}, 9);
      } catch (const std::invalid_argument&) {
        continue;  // not served
      }
      ++calls;
      check(result_of(op, p, kernel, operands, epilogue) == expected,
            std::string(names[static_cast<int>(op)]) + " by " + name + ": " + text_of(p));
    }
  }
  return calls;
}

const std::vector<NamedKernel> kKernels = {
    {"tiled", Kernel::kTiled},     {"gemm", Kernel::kGemm},
    {"grouped", Kernel::kGrouped}, {"few_channels", Kernel::kFewChannels},
    {"wgmma", Kernel::kWgmma},     {"auto", Kernel::kAuto}};

const std::vector<NamedKernel> kKernelsAndReference = [] {
  std::vector<NamedKernel> kernels = kKernels;
  kernels.push_back({"reference", Kernel::kReference});
  return kernels;
}();

}  // namespace

TEST(any_steps) {
  int calls = 0;
  for (const DType dtype : {DType::kF32, DType::kF64, DType::kBF16, DType::kF16})
    for (int n = 0; n < 120; ++n) calls += check_kernels(random_problem(dtype), kKernels);
  check(calls > 4000, "few calls were served: " + std::to_string(calls));
}

// Long sums in parts; a phase has fewer terms than the whole.
TEST(any_steps_in_parts) {
  for (const DType dtype : {DType::kF32, DType::kBF16}) {
    for (const int64_t groups : {1, 3}) {
      ConvProblem p;
      p.dtype = dtype;
      p.unrounded = dtype == DType::kBF16;
      p.batch = 10;
      p.groups = p.in_channels = p.out_channels = groups;
      p.axis[2] = Axis{150, 5, 451, 1, 2, 3, 2};
      for (const Kernel kernel : {Kernel::kTiled, Kernel::kGemm})
        check(cuda::conv_workspace_bytes(Op::kWgrad, p, {kernel, false}) > 0, "parts");
      check_kernels(p, kKernels);
      p.axis[2] = Axis{150, 2, 1001, 1, 300, 3, 1};
      check_kernels(p, kKernels);
    }
  }
}

namespace {

// Scales all numbers of the relation by a factor.
ConvProblem scaled(ConvProblem p, int64_t factor) {
  for (Axis& axis : p.axis) {
    axis.stride *= factor;
    axis.filter_dilation *= factor;
    axis.input_dilation *= factor;
    axis.pad_lo *= factor;
  }
  return p;
}

}  // namespace

// Steps of up to 2^30, for which 32 bits hold no position: a kernel counts in 64 bits, or refuses.
TEST(steps_past_32_bits) {
  int calls = 0;
  for (int n = 0; n < 60; ++n) {
    ConvProblem p = random_problem(DType::kF32);
    for (Axis& axis : p.axis) {
      axis.stride = std::min<int64_t>(axis.stride, 4);
      axis.filter_dilation = std::min<int64_t>(axis.filter_dilation, 4);
      axis.input_dilation = std::min<int64_t>(axis.input_dilation, 4);
    }
    Operands operands(p);
    for (const Op op : {Op::kFprop, Op::kDgrad, Op::kWgrad}) {
      const auto expected = result_of(op, p, Kernel::kReference, operands, {});
      for (const int64_t factor : {int64_t{4096}, int64_t{16000}, int64_t{1} << 22, int64_t{1} << 28}) {
        const ConvProblem large = scaled(p, factor);
        for (const auto& [name, kernel] : kKernelsAndReference) {
          try {
            cuda::plan(op, large, {kernel, false}, 9);
          } catch (const std::invalid_argument&) {
            continue;  // not served
          }
          ++calls;
          check(result_of(op, large, kernel, operands, {}) == expected,
                std::string(name) + ": " + text_of(large));
        }
      }
    }
  }
  check(calls > 1500, "few calls were served: " + std::to_string(calls));
}
