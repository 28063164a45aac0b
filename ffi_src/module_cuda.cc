// The nanobind module of the CUDA kernels: jax_convgrad._cuda, or under another name the emulated one.
#include "cuda_src/plan.h"
#include "ffi_src/cuda_plan.h"
#include "ffi_src/handlers_cuda.h"
#include "ffi_src/module.h"

NB_MODULE(CONVGRAD_MODULE, module) {
  using namespace convgrad;
  define_module(
      module, cuda::handlers,
      [](const std::string& op, const ConvProblem& problem, const std::string& kernel, bool tf32) {
        const cuda::Request request = {cuda::kernel_named(kernel), tf32};
        if (op == "wgrad_bgrad") return cuda::wgrad_bgrad_workspace_bytes(problem, request);
        return cuda::conv_workspace_bytes(op_named(op), problem, request);
      },
      [](const BiasProblem& problem) { return cuda::bgrad_workspace_bytes(problem); });
  module.def(
      "kernels",
      [] {
        std::vector<std::string> names;
        for (const cuda::Kernel kernel : cuda::kKernels) names.push_back(cuda::kernel_name(kernel));
        return names;
      },
      "Lists the convolution kernels that a call can ask for by name, except \"auto\".");
  cuda::define_plan(module, "plan");
  module.def(
      "build", [] { return std::make_pair(CONVGRAD_CUDA_TOOLKIT, CONVGRAD_CUDA_ARCHITECTURES); },
      "The CUDA toolkit's version, and the architectures as CMake's CUDA_ARCHITECTURES names them.");
  module.def("handler_calls", &cuda::handler_calls,
             "How many calls have reached a handler: a CUDA graph that is replayed makes none.");
}
