// The nanobind module of the CUDA kernels: jax_convgrad._cuda, and by another name the emulated one.
#include "cuda_src/plan.h"
#include "ffi_src/handlers_cuda.h"
#include "ffi_src/module.h"

NB_MODULE(CONVGRAD_MODULE, module) {
  using namespace convgrad;
  define_module(
      module, cuda::handlers(),
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
        for (const auto& [name, kernel] : cuda::kernels()) names.push_back(name);
        return names;
      },
      "The convolution kernels that a call can ask for by name, beside \"auto\".");
  module.def(
      "chosen_kernel",
      [](const std::string& op, const std::string& dtype, int64_t batch, int64_t in_channels,
         int64_t out_channels, int64_t groups, const std::vector<AxisNumbers>& axes, bool tf32,
         int capability) {
        const ConvProblem problem = conv_problem(dtype, batch, in_channels, out_channels, groups, axes);
        const cuda::ConvKernel chosen =
            cuda::choose_kernel(op_named(op), problem, {cuda::ConvKernel::kAuto, tf32}, capability);
        for (const auto& [name, kernel] : cuda::kernels())
          if (kernel == chosen) return name;
        throw std::logic_error("the plan's kernel has no name");
      },
      nb::arg("op"), nb::arg("dtype"), nb::arg("batch"), nb::arg("in_channels"), nb::arg("out_channels"),
      nb::arg("groups"), nb::arg("axes"), nb::arg("tf32"), nb::arg("capability"),
      "Which kernel \"auto\" stands for, on devices of this compute capability's first number.");
  module.def(
      "build", [] { return std::make_pair(CONVGRAD_CUDA_TOOLKIT, CONVGRAD_CUDA_ARCHITECTURES); },
      "The CUDA toolkit's version, and the architectures as CMake's CUDA_ARCHITECTURES names them.");
  module.def("handler_calls", &cuda::handler_calls,
             "How many calls have reached a handler: a CUDA graph that is replayed makes none.");
}
