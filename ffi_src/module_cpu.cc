// The nanobind module jax_convgrad._cpu.
#include "cpu_src/batch_norm/plan.h"
#include "cpu_src/machine.h"
#include "cpu_src/plan_facts.h"
#include "ffi_src/cuda_plan.h"
#include "ffi_src/handlers_cpu.h"
#include "ffi_src/module.h"

namespace {

convgrad::cpu::Request request_of(const std::string& kernel, bool below_highest) {
  convgrad::cpu::Request request = convgrad::cpu::request_named(kernel);
  request.below_highest = below_highest;
  return request;
}

// Returns the facts of a convolution op, or of the gradient of the bias that is added to its result.
convgrad::Facts facts_of(const std::string& op, const convgrad::ConvProblem& problem,
                         const std::string& kernel, bool below_highest) {
  if (op == "bgrad")
    return convgrad::cpu::plan_facts(convgrad::bias_problem(problem),
                                     convgrad::cpu::pool_request_named(kernel));
  return convgrad::cpu::plan_facts(convgrad::op_named(op), problem, request_of(kernel, below_highest));
}

}  // namespace

NB_MODULE(_cpu, module) {
  using namespace convgrad;
  define_module(
      module, cpu::handlers,
      [](const std::string& op, const ConvProblem& problem, const std::string& kernel, bool below_highest) {
        return cpu::conv_workspace_bytes(op_named(op), problem, request_of(kernel, below_highest));
      },
      [](const BiasProblem& problem) { return cpu::bgrad_workspace_bytes(problem); });
  module.def(
      "norm_workspace_bytes",
      [](int64_t groups, int64_t rows, int64_t channels) {
        // The dtype makes no difference. No rows: their number is not known yet.
        return cpu::norm_workspace_bytes({DType::kF32, groups, rows, channels}, rows == 0);
      },
      nb::arg("groups"), nb::arg("rows"), nb::arg("channels"),
      "Bytes of the workspace result of a norm_moments or norm_sums call; of any number of rows if that is "
      "0.");
  module.def(
      "plan",
      [](const std::string& op, const std::string& kernel, const std::string& dtype, int64_t batch,
         int64_t in_channels, int64_t out_channels, int64_t groups, const std::vector<AxisNumbers>& axes,
         bool below_highest) {
        return dict_of(facts_of(op, conv_problem(dtype, batch, in_channels, out_channels, groups, axes),
                                kernel, below_highest));
      },
      nb::arg("op"), nb::arg("kernel"), nb::arg("dtype"), nb::arg("batch"), nb::arg("in_channels"),
      nb::arg("out_channels"), nb::arg("groups"), nb::arg("axes"), nb::arg("below_highest") = true,
      "Which kernel serves a layer's fprop, dgrad, wgrad or bgrad, and how: facts by name.");
  cuda::define_plan(module, "cuda_plan");
  module.def(
      "peak_flops", cpu::peak_flops, nb::arg("seconds"), nb::call_guard<nb::gil_scoped_release>(),
      "Measures the f32 multiply-adds of one thread in registers: floating-point operations per second.");
  module.def(
      "instruction_sets",
      [] {
        std::vector<std::string> names;
        for (const cpu::Isa isa : cpu::supported_isas()) names.push_back(cpu::isa_name(isa));
        return names;
      },
      "Lists the instruction sets of this machine that have kernels, the widest last.");
}
