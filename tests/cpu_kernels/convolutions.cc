// Compares fprop (alone and with its epilogue), dgrad and wgrad of every kernel on every instruction set with
// the reference kernels in float64.
#include <stdexcept>

#include "common_src/dispatch.h"
#include "cpu_src/bf16_dots.h"
#include "cpu_src/kernels.h"
#include "tests/cpu_kernels/checks.h"
#include "tests/cpu_kernels/problems.h"

namespace convgrad::test {
namespace {

using cpu::Isa;
using cpu::Kernel;
using cpu::Request;

struct NamedOp {
  Op op;
  const char* name;
  bool epilogue = false;  // bias and relu
};
constexpr NamedOp kOps[] = {{Op::kFprop, "fprop"},
                            {Op::kFprop, "fprop with bias and relu", true},
                            {Op::kDgrad, "dgrad"},
                            {Op::kWgrad, "wgrad"}};

// The number of elements of an op's two operands and its result.
struct Sizes {
  int64_t a, b, result;
  int64_t length;  // products in one sum
};
Sizes sizes(Op op, const ConvProblem& p) {
  const int64_t x = p.batch * p.inputs() * p.in_channels, y = p.batch * p.outputs() * p.out_channels,
                w = p.taps() * p.group_in() * p.out_channels;
  if (op == Op::kFprop) return {x, w, y, p.taps() * p.group_in()};
  if (op == Op::kDgrad) return {y, w, x, p.taps() * p.group_out()};
  return {x, y, w, p.batch * p.outputs()};
}

cpu::Work work(Op op, const ConvProblem& p, Request request, const void* a, const void* b, Epilogue epilogue,
               void* result, void* workspace) {
  if (op == Op::kFprop) return cpu::fprop(p, request, a, b, epilogue, result, workspace);
  if (op == Op::kDgrad) return cpu::dgrad(p, request, a, b, result, workspace);
  return cpu::wgrad(p, request, a, b, result, workspace);
}

std::vector<double> reference_sums(Op op, ConvProblem p, const std::vector<double>& a,
                                   const std::vector<double>& b) {
  p.dtype = DType::kF64;
  std::vector<double> result(sizes(op, p).result);
  run(work(op, p, {Kernel::kReference, Isa::kPlain}, a.data(), b.data(), {}, result.data(), nullptr), false);
  return result;
}

// Computes max(sum + bias, 0) of sums whose last dimension is the bias's.
void finish(std::vector<double>& sums, const std::vector<double>& bias) {
  for (size_t at = 0; at < sums.size(); ++at) sums[at] = std::max(sums[at] + bias[at % bias.size()], 0.0);
}

std::vector<double> absolute(std::vector<double> values) {
  for (double& value : values) value = std::abs(value);
  return values;
}

// Winograd's transforms mix the numbers of a tile, so that a result's error depends on its neighbours. Their
// numbers grow at most by this.
Expected expected_of_tiles(Expected expected) {
  constexpr double kGrowth = 8;
  double largest = 0;
  for (const double sum : expected.sum_of_abs) largest = std::max(largest, sum);
  std::fill(expected.sum_of_abs.begin(), expected.sum_of_abs.end(), kGrowth * largest);
  return expected;
}

bool serves(Op op, const ConvProblem& p, Request request) {
  try {
    cpu::plan(op, p, request);
    return true;
  } catch (const std::invalid_argument&) {
    return false;
  }
}

template <typename T>
void check_op(Report& report, const std::string& problem_name, ConvProblem p, NamedOp op) {
  p.dtype = kDType<T>;
  const Sizes count = sizes(op.op, p);
  const Guarded<T> a(count.a, 1), b(count.b, 2);
  const std::vector<double> exact_a = a.doubles(), exact_b = b.doubles();
  Expected expected{reference_sums(op.op, p, exact_a, exact_b),
                    reference_sums(op.op, p, absolute(exact_a), absolute(exact_b)), count.length};
  Guarded<T> bias(op.epilogue ? p.out_channels : 0, 3);
  Epilogue epilogue;
  if (op.epilogue && p.out_channels > 0) {
    epilogue = {bias.data(), true};
    finish(expected.exact, bias.doubles());
    finish(expected.sum_of_abs, absolute(bias.doubles()));
  }
  for (const Isa isa : cpu::supported_isas()) {
    for (const Kernel kernel : cpu::kKernels) {
      if (kernel == Kernel::kReference && isa != Isa::kPlain) continue;  // it has one form
      if (cpu::isa_of(p.dtype, isa) != isa) continue;                    // the same code
      const Request request{kernel, isa};
      if (!serves(op.op, p, request)) continue;
      const std::string name = std::string(cpu::kernel_name(kernel)) + "." + cpu::isa_name(isa);
      const std::string what =
          std::string(op.name) + " of \"" + problem_name + "\", " + dtype_name(p.dtype) + ", " + name;
      // Running the tasks in order, and from last to first in other memory, must give the same bits.
      Guarded<T> result(count.result), again(count.result);
      for (Guarded<T>* to : {&result, &again}) {
        Guarded<unsigned char> workspace(cpu::conv_workspace_bytes(op.op, p, request));
        run(work(op.op, p, request, a.data(), b.data(), epilogue, to->data(), workspace.data()),
            to == &again);
        report.expect_intact(what, *to);
        report.expect_intact(what + ", workspace", workspace);
      }
      report.expect_close(what, result, kernel == Kernel::kWinograd ? expected_of_tiles(expected) : expected);
      if (!(result == again)) report.fail(what, "other bits where tasks come in another order");
      report.tried(std::string(op.name) + " " + name);
    }
  }
}

}  // namespace

void check_convolutions(Report& report, const std::string& filter) {
  for (const auto& [name, problem] : conv_problems()) {
    if (name.find(filter) == std::string::npos) continue;
    for (const NamedOp op : kOps) {
      for (const DType dtype : {DType::kF32, DType::kF64, DType::kBF16, DType::kF16}) {
        dispatch(dtype, [&, name = name, problem = problem](auto stored) {
          check_op<typename decltype(stored)::type>(report, name, problem, op);
        });
      }
    }
  }
  // Every kernel must have served some problem; otherwise nothing tests it.
  if (!filter.empty()) return;
  for (const Isa isa : cpu::supported_isas()) {
    for (const Kernel kernel : cpu::kKernels) {
      if (kernel == Kernel::kReference && isa != Isa::kPlain) continue;
      const std::string name = std::string(cpu::kernel_name(kernel)) + "." + cpu::isa_name(isa);
      if (report.tries("fprop " + name) == 0) report.fail(name, "serves fprop of no problem");
    }
  }
}

}  // namespace convgrad::test
