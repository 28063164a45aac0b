// The nanobind module of the CUDA kernels: jax_convgrad._cuda, and by another name the emulated one.
#include "cuda_src/plan.h"
#include "ffi_src/handlers_cuda.h"
#include "ffi_src/module.h"

namespace {

convgrad::cuda::ConvOp op_named(const std::string& name) {
  using convgrad::cuda::ConvOp;
  if (name == "fprop") return ConvOp::kFprop;
  if (name == "dgrad") return ConvOp::kDgrad;
  if (name == "wgrad") return ConvOp::kWgrad;
  throw std::invalid_argument("op must not be " + name);
}

}  // namespace

NB_MODULE(CONVGRAD_MODULE, module) {
  using namespace convgrad;
  define_module(
      module, cuda::handlers(),
      [](const std::string& op, const ConvProblem& problem, const std::string& kernel, bool tf32) {
        return cuda::conv_workspace_bytes(problem, op_named(op), {cuda::kernel_named(kernel), tf32});
      },
      [](const BiasProblem& problem) { return cuda::bgrad_workspace_bytes(problem); });
  module.def(
      "kernels",
      [] {
        std::vector<std::string> names;
        for (const auto& [name, kernel] : cuda::kernels()) names.push_back(name);
        return names;
      },
      "The convolution kernels that a call can ask for by name, beside \"auto\".");
  module.def("handler_calls", &cuda::handler_calls,
             "How many calls have reached a handler: a CUDA graph that is replayed makes none.");
}
