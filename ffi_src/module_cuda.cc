// The nanobind module of the CUDA kernels: jax_convgrad._cuda, and by another name the emulated one.
#include "cuda_src/plan.h"
#include "ffi_src/handlers_cuda.h"
#include "ffi_src/module.h"

NB_MODULE(CONVGRAD_MODULE, module) {
  using namespace convgrad;
  define_module(
      module, cuda::handlers(),
      [](const std::string& op, const ConvProblem& problem, const std::string& kernel) {
        return op != "wgrad" ? 0 : cuda::wgrad_workspace_bytes(problem, cuda::kernel_named(kernel));
      },
      [](const BiasProblem& problem) { return cuda::bgrad_workspace_bytes(problem); });
}
