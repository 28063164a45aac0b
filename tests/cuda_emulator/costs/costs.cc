// Counts the cost of a call of the CUDA kernels instead of timing it: the basic blocks that its host and
// device code execute, plans included. Layers with the same products and results must cost the same at ever
// larger steps and with ever more padding.
#include <cmath>
#include <cstdint>
#include <iostream>
#include <string>
#include <vector>

#include "check.h"
#include "cuda_src/kernels.h"
#include "cuda_src/plan.h"

using namespace selftest;
using namespace convgrad;
using cuda::Kernel;
using cuda::PoolKernel;

namespace {
int64_t steps = 0;
}

// The compiler inserts a call at the start of each basic block (-fsanitize-coverage=trace-pc).
extern "C" void __sanitizer_cov_trace_pc() { ++steps; }

namespace {

using Bytes = std::vector<unsigned char>;

struct NamedKernel {
  const char* name;
  Kernel kernel;
};

// Returns the cost of one call, whose results are not checked here.
template <typename Call>
int64_t cost_of(const Call& call, const std::string& what) {
  const int64_t before = steps;
  const cudaError_t error = call();
  check(error == cudaSuccess, what + ": " + cudaGetErrorString(error));
  return steps - before;
}

int64_t cost_of(Op op, const ConvProblem& p, Kernel kernel, const std::string& what) {
  const int64_t size = bytes_of(p.dtype);
  Bytes x(p.batch * p.inputs() * p.in_channels * size), y(p.batch * p.outputs() * p.out_channels * size),
      w(p.taps() * p.group_in() * p.out_channels * size);
  const cuda::Request request{kernel, false};
  return cost_of(
      [&] {
        Bytes workspace(cuda::conv_workspace_bytes(op, p, request));
        switch (op) {
          case Op::kFprop:
            return cuda::fprop(p, request, x.data(), w.data(), {}, y.data(), workspace.data(), nullptr);
          case Op::kDgrad:
            return cuda::dgrad(p, request, y.data(), w.data(), x.data(), workspace.data(), nullptr);
          case Op::kWgrad:
            return cuda::wgrad(p, request, x.data(), y.data(), w.data(), workspace.data(), nullptr);
        }
        return cudaErrorInvalidValue;
      },
      what);
}

int64_t results_of(Op op, const ConvProblem& p) {
  if (op == Op::kFprop) return p.batch * p.outputs() * p.out_channels;
  if (op == Op::kDgrad) return p.batch * p.inputs() * p.in_channels;
  return p.taps() * p.group_in() * p.out_channels;
}

constexpr int64_t kSmall = 16, kLarge = 1024;

// Expects the cost of a layer to stay flat as its step grows. Its products do not grow, but its results may;
// each further result may cost `each`, because it is written. Twice the cost is allowed, because other steps
// may get another kernel or leave more of a tile empty.
template <typename Layer>
void expect_flat(Op op, const std::vector<NamedKernel>& kernels, const std::string& what, int64_t each,
                 const Layer& layer) {
  std::string failed;
  for (const auto& [name, kernel] : kernels) {
    const std::string call = what + " by " + name;
    const ConvProblem small = layer(kSmall), large = layer(kLarge);
    const int64_t few = cost_of(op, small, kernel, call), many = cost_of(op, large, kernel, call);
    const int64_t further = results_of(op, large) - results_of(op, small);
    const double most =
        2.0 * static_cast<double>(few) + static_cast<double>(each * std::max<int64_t>(further, 0));
    std::cout << call << ": " << few << " steps, and " << many << " of " << most << "\n";
    if (static_cast<double>(many) > most) failed += (failed.empty() ? "" : ", ") + call;
  }
  check(failed.empty(), "it costs more where a step is larger: " + failed);
}

ConvProblem problem(const Axis& axis, int64_t in_channels = 16, int64_t out_channels = 16, int64_t groups = 1,
                    int64_t batch = 2) {
  ConvProblem p;
  p.batch = batch;
  p.in_channels = in_channels;
  p.out_channels = out_channels;
  p.groups = groups;
  p.axis[2] = axis;
  return p;
}
ConvProblem depthwise(const Axis& axis) { return problem(axis, 16, 16, 16); }
ConvProblem one_channel(const Axis& axis) { return problem(axis, 1, 16); }

const std::vector<NamedKernel> kProducts = {
    {"reference", Kernel::kReference}, {"tiled", Kernel::kTiled}, {"gemm", Kernel::kGemm}};
const std::vector<NamedKernel> kGrouped = {
    {"grouped", Kernel::kGrouped}, {"tiled, in groups", Kernel::kTiled}, {"gemm, in groups", Kernel::kGemm}};
const std::vector<NamedKernel> kFew = {{"what few channels get", Kernel::kAuto}};

// Tests kernels of all kinds.
template <typename AxisOf>
void expect_flat_in_all(Op op, const std::string& what, int64_t each, const AxisOf& axis) {
  std::string failed;
  const auto expect = [&](const std::vector<NamedKernel>& kernels, int64_t each, auto layer) {
    try {
      expect_flat(op, kernels, what, each, [&](int64_t step) { return layer(axis(step)); });
    } catch (const std::runtime_error& error) {
      failed += error.what() + std::string("\n");
    }
  };
  // A tile has 64 columns; these layers use 16 of them, or one.
  expect(kProducts, each, [](const Axis& axis) { return problem(axis); });
  expect(kGrouped, 8 * each, depthwise);
  expect(kFew, 8 * each, one_channel);
  check(failed.empty(), failed);
}

// A result that is zero, or a bias, costs a thread of its own in the reference and grouped kernels.
constexpr int64_t kEach = 150;

Axis strided(int64_t step) { return {64 * step, 3, 64, step, 1, 1, 1}; }
Axis dilated_filter(int64_t step) { return {64 + 2 * step, 3, 64, 1, 0, 1, step}; }
Axis transposed(int64_t step) { return {32, 4, 31 * step + 4, 1, 3, step, 1}; }
Axis all_steps(int64_t step) { return {32, 8, 32, step + 1, 5, step, step + 3}; }
Axis long_filter(int64_t step) { return {8, step, 8, 1, step / 2, 1, 1}; }
Axis far_padding(int64_t step) { return {8, 4, step, 1, step / 2, 1, 1}; }

}  // namespace

TEST(cost_of_strides) {
  expect_flat_in_all(Op::kFprop, "fprop at a stride", 0, strided);
  expect_flat_in_all(Op::kWgrad, "wgrad at a stride", 0, strided);
  expect_flat_in_all(Op::kDgrad, "dgrad at a stride", kEach, strided);
}
TEST(cost_of_one_tap) {
  expect_flat_in_all(Op::kDgrad, "dgrad of one tap", 0,
                     [](int64_t step) { return Axis{4 * kLarge, 1, 4 * kLarge / step, step, 0, 1, 1}; });
}
TEST(cost_of_dilated_filters) {
  expect_flat_in_all(Op::kFprop, "fprop of taps far apart", 0, dilated_filter);
  expect_flat_in_all(Op::kWgrad, "wgrad of taps far apart", 0, dilated_filter);
  expect_flat_in_all(Op::kDgrad, "dgrad of taps far apart", kEach, dilated_filter);
}
TEST(cost_of_dilated_inputs) {
  expect_flat_in_all(Op::kFprop, "fprop of a transposed layer", kEach, transposed);
  expect_flat_in_all(Op::kWgrad, "wgrad of a transposed layer", 0, transposed);
  expect_flat_in_all(Op::kDgrad, "dgrad of a transposed layer", 0, transposed);
}
TEST(cost_of_all_steps) {
  for (const Op op : {Op::kFprop, Op::kDgrad, Op::kWgrad}) expect_flat_in_all(op, "all steps", 0, all_steps);
}
TEST(cost_of_padding) {
  expect_flat_in_all(Op::kFprop, "fprop of a filter past both ends", 0, long_filter);
  expect_flat_in_all(Op::kDgrad, "dgrad of a filter past both ends", 0, long_filter);
  expect_flat_in_all(Op::kWgrad, "wgrad of a filter past both ends", kEach, long_filter);
  expect_flat_in_all(Op::kFprop, "fprop of padding", kEach, far_padding);
  expect_flat_in_all(Op::kDgrad, "dgrad of padding", 0, far_padding);
  expect_flat_in_all(Op::kWgrad, "wgrad of padding", 0, far_padding);
}

// As many rows of products for each of ever more phases: the filter grows, x does not.
TEST(cost_of_patches) {
  const auto patches = [](int64_t step) { return Axis{512, step, 512 / step, step, 0, 1, 1}; };
  for (const auto& [name, kernel] : kProducts) {
    const auto cost = [&](int64_t step) {
      return cost_of(Op::kDgrad, problem(patches(step), 4, 8, 1, 32), kernel, name);
    };
    const int64_t few = cost(8), many = cost(128);
    std::cout << "dgrad of patches by " << name << ": " << few << " steps, and " << many << "\n";
    check(many <= 2 * few, std::string("dgrad of patches by ") + name);
  }
}

namespace {

PoolProblem pool(const Axis& axis) {
  PoolProblem p;
  p.channels = 8;
  p.count_include_pad = false;
  p.axis[2] = axis;
  return p;
}

// Returns the costs of all pooling ops.
std::vector<std::pair<std::string, int64_t>> pool_costs(PoolProblem p, PoolKernel kernel) {
  const int64_t inputs = p.inputs() * p.channels, outputs = p.outputs() * p.channels;
  // Only where y is NaN or -infinity does position_rule have work.
  std::vector<float> x(inputs, -INFINITY), y(outputs);
  std::vector<int32_t> position(outputs);
  std::vector<std::pair<std::string, int64_t>> costs;
  const auto add = [&](const char* name, auto call) { costs.emplace_back(name, cost_of(call, name)); };
  add("avg_pool", [&] { return cuda::avg_pool(p, kernel, x.data(), y.data(), nullptr); });
  add("avg_pool_grad", [&] { return cuda::avg_pool_grad(p, kernel, y.data(), x.data(), nullptr); });
  for (const PositionRule rule : {PositionRule::kFirstMaximum, PositionRule::kSelectAndScatter}) {
    p.position_rule = rule;
    x.assign(inputs, -INFINITY);
    add("max_pool", [&] { return cuda::max_pool(p, kernel, x.data(), y.data(), position.data(), nullptr); });
  }
  add("max_pool_grad",
      [&] { return cuda::max_pool_grad(p, kernel, y.data(), position.data(), x.data(), nullptr); });
  return costs;
}

template <typename AxisOf>
void expect_flat_pools(const std::string& what, int64_t each, const AxisOf& axis) {
  for (const PoolKernel kernel : {PoolKernel::kReference, PoolKernel::kVector}) {
    const PoolProblem small = pool(axis(kSmall)), large = pool(axis(kLarge));
    const auto few = pool_costs(small, kernel), many = pool_costs(large, kernel);
    const int64_t further =
        (large.inputs() + large.outputs() - small.inputs() - small.outputs()) * large.channels;
    for (size_t op = 0; op < few.size(); ++op) {
      const double most = 2.0 * static_cast<double>(few[op].second) + static_cast<double>(each * further);
      const std::string call =
          few[op].first + " " + what + (kernel == PoolKernel::kReference ? ", reference" : ", vector");
      std::cout << call << ": " << few[op].second << " steps, and " << many[op].second << " of " << most
                << "\n";
      check(static_cast<double>(many[op].second) <= most, "it costs more where a step is larger: " + call);
    }
  }
}

}  // namespace

TEST(cost_of_pools) {
  expect_flat_pools("past both ends", 0, long_filter);
  expect_flat_pools("at a stride", 80, strided);
  expect_flat_pools("of taps far apart", 80, dilated_filter);
  expect_flat_pools("of padding", 120, far_padding);
}
