// The nanobind module jax_convgrad._cpu.
#include "cpu_src/plan.h"
#include "ffi_src/handlers_cpu.h"
#include "ffi_src/module.h"

NB_MODULE(_cpu, module) {
  using namespace convgrad;
  define_module(
      module, cpu::handlers(),
      [](const ConvProblem& problem, const std::string&) { return cpu::wgrad_workspace_bytes(problem); },
      [](const BiasProblem& problem) { return cpu::bgrad_workspace_bytes(problem); });
}
