// Runs one op of one layer a number of times on one thread and one instruction set, for instructions.py to
// count. The difference of two counts belongs to the additional runs alone.
//
//     run_kernel OP ISA RUNS N C K GROUPS (input taps output stride pad_lo input_dilation filter_dilation)*3
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <stdexcept>
#include <string>
#include <vector>

#include "cpu_src/kernels.h"

namespace {

using namespace convgrad;

// Small numbers, so that no sum overflows or becomes subnormal.
std::vector<float> numbers(int64_t count) {
  std::vector<float> values(static_cast<size_t>(count));
  for (size_t i = 0; i < values.size(); ++i) values[i] = static_cast<float>(i % 7) - 3.0f;
  return values;
}

ConvProblem read_problem(char** argument) {
  const auto next = [&argument] { return static_cast<int64_t>(std::strtoll(*argument++, nullptr, 10)); };
  ConvProblem problem;
  problem.batch = next();
  problem.in_channels = next();
  problem.out_channels = next();
  problem.groups = next();
  for (Axis& axis : problem.axis) {
    for (int64_t* number : {&axis.input, &axis.taps, &axis.output, &axis.stride, &axis.pad_lo,
                            &axis.input_dilation, &axis.filter_dilation})
      *number = next();
  }
  return problem;
}

PoolProblem pool_of(const ConvProblem& problem) {
  PoolProblem pool;
  pool.batch = pool.operand_batch = pool.position_batch = problem.batch;
  pool.channels = problem.in_channels;
  for (int a = 0; a < kAxes; ++a) pool.axis[a] = problem.axis[a];
  return pool;
}

class Kernel {
 public:
  Kernel(const std::string& op, const std::string& isa, const ConvProblem& problem)
      : op_(op),
        problem_(problem),
        choice_(cpu::request_named("auto." + isa)),
        x_(numbers(problem.batch * problem.inputs() * problem.in_channels)),
        w_(numbers(problem.taps() * problem.group_in() * problem.out_channels)),
        y_(numbers(problem.batch * problem.outputs() * problem.out_channels)),
        position_(y_.size()),
        workspace_(workspace_bytes()) {
    if (op == "max_pool_grad") run(work("max_pool"));  // its gradient needs valid positions
  }

  void run_once() { run(work(op_)); }

 private:
  size_t workspace_bytes() const {
    if (op_ == "bgrad") return cpu::bgrad_workspace_bytes(bias());
    int64_t bytes = 0;
    for (const Op op : {Op::kFprop, Op::kDgrad, Op::kWgrad})
      bytes = std::max(bytes, cpu::conv_workspace_bytes(op, problem_, choice_));
    return static_cast<size_t>(bytes);
  }

  BiasProblem bias() const {
    return {DType::kF32, problem_.batch * problem_.outputs(), problem_.out_channels};
  }

  cpu::Work work(const std::string& op) {
    float *x = x_.data(), *w = w_.data(), *y = y_.data();
    void* workspace = workspace_.data();
    if (op == "fprop") return cpu::fprop(problem_, choice_, x, w, {}, y, workspace);
    if (op == "dgrad") return cpu::dgrad(problem_, choice_, y, w, x, workspace);
    if (op == "wgrad") return cpu::wgrad(problem_, choice_, x, y, w, workspace);
    if (op == "bgrad") return cpu::bgrad(bias(), choice_, y, w, workspace);
    const PoolProblem pool = pool_of(problem_);
    if (op == "max_pool") return cpu::max_pool(pool, choice_, x, y, position_.data());
    if (op == "max_pool_grad") return cpu::max_pool_grad(pool, choice_, y, position_.data(), x);
    if (op == "avg_pool") return cpu::avg_pool(pool, choice_, x, y);
    if (op == "avg_pool_grad") return cpu::avg_pool_grad(pool, choice_, y, x);
    throw std::invalid_argument("no op is called " + op);
  }

  static void run(const cpu::Work& work) {
    for (const cpu::Stage& stage : work.stages)
      for (int64_t task = 0; task < stage.tasks; ++task) stage.run(task);
  }

  std::string op_;
  ConvProblem problem_;
  cpu::Request choice_;
  std::vector<float> x_, w_, y_;
  std::vector<int32_t> position_;
  std::vector<char> workspace_;
};

}  // namespace

int main(int count, char** arguments) {
  if (count != 8 + 7 * kAxes) {
    std::fprintf(stderr, "usage: see the head of %s\n", __FILE__);
    return 2;
  }
  try {
    Kernel kernel(arguments[1], arguments[2], read_problem(arguments + 4));
    for (long runs = std::strtol(arguments[3], nullptr, 10); runs > 0; --runs) kernel.run_once();
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 2;
  }
  return 0;
}
