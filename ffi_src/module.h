// What both native modules offer to Python: the handlers, and the workspace sizes that tracing asks for.
#pragma once

#include <nanobind/nanobind.h>
#include <nanobind/stl/array.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <array>
#include <map>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "common_src/facts.h"
#include "common_src/problem.h"
#include "xla/ffi/api/c_api.h"

namespace convgrad {

namespace nb = nanobind;

// input, taps, output, stride, pad_lo, input_dilation, filter_dilation
using AxisNumbers = std::array<int64_t, 7>;

inline DType dtype_named(const std::string& name) {
  static const std::map<std::string, DType> dtypes = {{"float32", DType::kF32},
                                                      {"float64", DType::kF64},
                                                      {"bfloat16", DType::kBF16},
                                                      {"float16", DType::kF16}};
  const auto found = dtypes.find(name);
  if (found == dtypes.end()) throw std::invalid_argument("dtype must not be " + name);
  return found->second;
}

inline Op op_named(const std::string& name) {
  if (name == "fprop") return Op::kFprop;
  if (name == "dgrad") return Op::kDgrad;
  if (name == "wgrad") return Op::kWgrad;
  throw std::invalid_argument("op must not be " + name);
}

inline ConvProblem conv_problem(const std::string& dtype, int64_t batch, int64_t in_channels,
                                int64_t out_channels, int64_t groups, const std::vector<AxisNumbers>& axes) {
  if (axes.size() > kAxes || groups < 1) throw std::invalid_argument("at most 3 axes, at least 1 group");
  ConvProblem problem;
  problem.dtype = dtype_named(dtype);
  problem.batch = batch;
  problem.in_channels = in_channels;
  problem.out_channels = out_channels;
  problem.groups = groups;
  Axis* axis = problem.axis + (kAxes - axes.size());
  for (const auto& [input, taps, output, stride, pad_lo, input_dilation, filter_dilation] : axes)
    *axis++ = Axis{input, taps, output, stride, pad_lo, input_dilation, filter_dilation};
  return problem;
}

inline nb::dict dict_of(const Facts& facts) {
  nb::dict dict;
  for (const auto& [name, fact] : facts)
    std::visit([&dict, &name = name](const auto& value) { dict[name.c_str()] = value; }, fact);
  return dict;
}

// `conv_bytes(op, problem, kernel name, below_highest)`, with op "fprop", "dgrad" or "wgrad" (on CUDA also
// "wgrad_bgrad"), and `bgrad_bytes(problem)` come from the backend's plan. `handlers` is a function and not
// its result, since nanobind moves what a lambda captures by memcpy, and libc++'s std::map points into
// itself.
template <typename ConvBytes, typename BgradBytes>
void define_module(nb::module_& module, std::map<std::string, XLA_FFI_Handler*> (*handlers)(),
                   ConvBytes conv_bytes, BgradBytes bgrad_bytes) {
  module.def(
      "registrations",
      [handlers] {
        nb::dict capsules;
        for (const auto& [name, handler] : handlers())
          capsules[name.c_str()] = nb::capsule(reinterpret_cast<void*>(handler));
        return capsules;
      },
      "Op name -> capsule of its FFI handler.");
  module.def(
      "ffi_api_version", [] { return std::make_pair(XLA_FFI_API_MAJOR, XLA_FFI_API_MINOR); },
      "The version of XLA's FFI headers that the handlers are compiled with: major, minor.");
  module.def(
      "conv_workspace_bytes",
      [conv_bytes](const std::string& op, const std::string& kernel, const std::string& dtype, int64_t batch,
                   int64_t in_channels, int64_t out_channels, int64_t groups,
                   const std::vector<AxisNumbers>& axes, bool below_highest) {
        return conv_bytes(op, conv_problem(dtype, batch, in_channels, out_channels, groups, axes), kernel,
                          below_highest);
      },
      nb::arg("op"), nb::arg("kernel"), nb::arg("dtype"), nb::arg("batch"), nb::arg("in_channels"),
      nb::arg("out_channels"), nb::arg("groups"), nb::arg("axes"), nb::arg("below_highest") = false,
      "Bytes of the workspace result of a convolution's call.");
  module.def(
      "bgrad_workspace_bytes",
      [bgrad_bytes](const std::string& dtype, int64_t rows, int64_t channels) {
        return bgrad_bytes(BiasProblem{dtype_named(dtype), rows, channels});
      },
      nb::arg("dtype"), nb::arg("rows"), nb::arg("channels"),
      "Bytes of the workspace result of a bgrad call.");
}

}  // namespace convgrad
