// The nanobind module jax_convgrad._cpu.
#include "cpu_src/plan.h"
#include "ffi_src/handlers_cpu.h"
#include "ffi_src/module.h"

NB_MODULE(_cpu, module) {
  using namespace convgrad;
  define_module(
      module, cpu::handlers(),
      // No two of wgrad's tasks add to one sum, so there are no partial sums to keep.
      [](const ConvProblem&, const std::string&) { return int64_t{0}; },
      [](const BiasProblem& problem) { return cpu::bgrad_workspace_bytes(problem); });
}
