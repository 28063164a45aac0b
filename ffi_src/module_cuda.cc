// The nanobind module of the CUDA kernels: jax_convgrad._cuda, and by another name the emulated one.
#include "cuda_src/plan.h"
#include "ffi_src/handlers_cuda.h"
#include "ffi_src/module.h"

NB_MODULE(CONVGRAD_MODULE, module) {
  using namespace convgrad;
  define_module(
      module, cuda::handlers(),
      [](const std::string& op, const ConvProblem& problem, const std::string& kernel) {
        const cuda::ConvKernel requested = cuda::kernel_named(kernel);
        if (op == "wgrad") return cuda::wgrad_workspace_bytes(problem, requested);
        if (op == "wgrad_bgrad") return cuda::wgrad_bgrad_workspace_bytes(problem, requested);
        // These need none, but what the kernel does not serve is refused while the program is traced.
        cuda::choose_kernel(problem, op == "dgrad" ? cuda::ConvOp::kDgrad : cuda::ConvOp::kFprop, requested,
                            cuda::kNewestCapability);
        return int64_t{0};
      },
      [](const BiasProblem& problem) { return cuda::bgrad_workspace_bytes(problem); });
}
