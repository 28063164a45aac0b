// Defines the Python function that reports the CUDA kernels' plan. The CPU module defines it too, so that it
// exists on machines without CUDA.
#pragma once

#include <string>
#include <vector>

#include "cuda_src/plan_facts.h"
#include "ffi_src/module.h"

namespace convgrad::cuda {

inline void define_plan(nb::module_& module, const char* name) {
  module.def(
      name,
      [](const std::string& op, const std::string& kernel, const std::string& dtype, int64_t batch,
         int64_t in_channels, int64_t out_channels, int64_t groups, const std::vector<AxisNumbers>& axes,
         bool tf32, int capability) {
        const ConvProblem problem = conv_problem(dtype, batch, in_channels, out_channels, groups, axes);
        if (op == "bgrad") return dict_of(plan_facts(bias_problem(problem), pool_kernel_named(kernel)));
        return dict_of(plan_facts(op_named(op), problem, {kernel_named(kernel), tf32}, capability));
      },
      nb::arg("op"), nb::arg("kernel"), nb::arg("dtype"), nb::arg("batch"), nb::arg("in_channels"),
      nb::arg("out_channels"), nb::arg("groups"), nb::arg("axes"), nb::arg("tf32"), nb::arg("capability"),
      "Plans a layer's fprop, dgrad, wgrad or bgrad for a compute capability's first number: facts by name.");
}

}  // namespace convgrad::cuda
