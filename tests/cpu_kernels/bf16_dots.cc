// Dot products of bf16 pairs: which sums use them, and that they multiply only what is tied.
#include "cpu_src/bf16_dots.h"

#include <algorithm>

#include "common_src/major.h"
#include "cpu_src/kernels.h"
#include "cpu_src/tiled/activation_plan.h"
#include "cpu_src/tiled/filter_plan.h"
#include "tests/cpu_kernels/checks.h"
#include "tests/cpu_kernels/problems.h"

namespace convgrad::test {
namespace {

using cpu::Isa;
using cpu::Kernel;
using cpu::Request;

bool has_instructions() {
  const auto& isas = cpu::supported_isas();
  return std::find(isas.begin(), isas.end(), Isa::kAvx512Bf16) != isas.end();
}

ConvProblem layer(int64_t in_channels, int64_t groups, Axis inner, DType dtype = DType::kBF16) {
  ConvProblem p;
  p.dtype = dtype;
  p.batch = 2;
  p.in_channels = in_channels;
  p.out_channels = 64 * groups;
  p.groups = groups;
  p.axis[1] = axis(9, 3, {1, 1, 1});
  p.axis[2] = inner;
  return p;
}

void check_which(Report& report) {
  const Axis taps = axis(11, 3, {1, 1, 1});
  const auto plan = [](const ConvProblem& p, Isa isa) {
    return cpu::ActivationPlan(p, Major::kMN, cpu::LanesAre::kResults, isa);
  };
  const auto expect = [&](const char* what, bool met) {
    if (!met) report.fail("bf16 pairs", what);
    report.tried("bf16 pairs, plan");
  };
  for (const DType dtype : {DType::kF32, DType::kF64, DType::kF16}) {
    const ConvProblem other = layer(64, 1, taps, dtype);
    expect("only bf16 has them", !plan(other, Isa::kAvx512Bf16).pairs);
    expect("only bf16 has them in wgrad", !cpu::FilterPlan(other, Isa::kAvx512Bf16).pairs);
  }
  const ConvProblem even = layer(64, 1, taps), odd = layer(3, 1, taps),
                    far = layer(3, 1, axis(11, 3, {1, 2, 2, 1, 2}));
  expect("AVX-512 alone has none",
         !plan(even, Isa::kAvx512).pairs && !cpu::FilterPlan(even, Isa::kAvx512).pairs);
  expect("wgrad pairs positions", cpu::FilterPlan(even, Isa::kAvx512Bf16).pairs);
  expect("even channels are read in place", plan(even, Isa::kAvx512Bf16).reads_pairs_in_place());
  expect("odd channels pair up over taps",
         plan(odd, Isa::kAvx512Bf16).pairs_over_taps && plan(odd, Isa::kAvx512Bf16).terms_of_row() == 5);
  expect("not over taps that are apart",
         plan(far, Isa::kAvx512Bf16).pairs && !plan(far, Isa::kAvx512Bf16).pairs_over_taps);
  expect("nor over groups", !plan(layer(6, 2, taps), Isa::kAvx512Bf16).pairs_over_taps);
  expect("a single term has no partner", !plan(layer(2, 2, taps), Isa::kAvx512Bf16).pairs);
}

// An infinite number of x must reach only the results that are tied to it: the other number of a pair may not
// be multiplied by it, not even if that number is zero.
void check_infinite(Report& report, const std::string& name, ConvProblem p) {
  const int64_t x_size = p.batch * p.inputs() * p.in_channels,
                w_size = p.taps() * p.group_in() * p.out_channels,
                y_size = p.batch * p.outputs() * p.out_channels;
  if (x_size == 0 || w_size == 0 || y_size == 0) return;
  p.dtype = DType::kBF16;
  Guarded<BFloat16> x(x_size, 1);
  const Guarded<BFloat16> w(w_size, 2), dy(y_size, 3);
  for (const int64_t at : {x_size / 2, x_size - 1}) x.data()[at] = BFloat16{0x7f80};
  // Joined taps multiply dy by the padding of x, on every instruction set; the two may have been swapped.
  const cpu::FilterPlan filter(p, Isa::kAvx512Bf16);
  for (const Op op : {Op::kFprop, Op::kWgrad}) {
    if (op == Op::kWgrad && filter.swapped && filter.joined) continue;
    const int64_t size = op == Op::kFprop ? y_size : w_size;
    const auto results = [&](Request request) {
      Guarded<BFloat16> result(size);
      Guarded<unsigned char> workspace(cpu::conv_workspace_bytes(op, p, request));
      run(op == Op::kFprop ? cpu::fprop(p, request, x.data(), w.data(), {}, result.data(), workspace.data())
                           : cpu::wgrad(p, request, x.data(), dy.data(), result.data(), workspace.data()),
          false);
      return result.doubles();
    };
    const std::vector<double> expected = results({Kernel::kReference, Isa::kPlain}),
                              actual = results({Kernel::kTiled, Isa::kAvx512Bf16});
    const std::string what =
        std::string(op == Op::kFprop ? "fprop" : "wgrad") + " of \"" + name + "\", infinite x";
    for (int64_t at = 0; at < size; ++at) {
      if (std::isfinite(expected[at]) == std::isfinite(actual[at])) continue;
      report.fail(what, "number " + std::to_string(at) + " is " + std::to_string(actual[at]) +
                            ", should be " + std::to_string(expected[at]));
      break;
    }
    report.tried("bf16 pairs, infinite");
  }
}

}  // namespace

void check_bf16_dots(Report& report, const std::string& filter) {
  if (filter.empty()) check_which(report);
  if (!has_instructions()) {
    std::printf("no AVX512-BF16 here: dot products of bf16 pairs are not run\n");
    return;
  }
  for (const auto& [name, problem] : conv_problems()) {
    if (name.find(filter) != std::string::npos) check_infinite(report, name, problem);
  }
}

}  // namespace convgrad::test
