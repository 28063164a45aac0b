// The Python module _cuda_launches: which kernels a call would launch, with which grid and how much shared
// memory. Like _cuda_counters it is in _cuda_emulated's library.
#include "cuda_emulator/launches.h"

#include <dlfcn.h>
#include <nanobind/stl/tuple.h>

#include "cuda_src/kernels.h"
#include "ffi_src/handlers_cuda.h"
#include "ffi_src/module.h"

namespace {

using namespace convgrad;

// (the kernel's place in this library, blocks, threads per block, bytes of shared memory)
using LaunchNumbers = std::tuple<uint64_t, uint64_t, uint64_t, uint64_t>;

// Every array of the call begins at this address, which nobody reads. The first address has TMA's alignment,
// the other only that of a number.
char* array(bool aligned, DType dtype) {
  return reinterpret_cast<char*>((uintptr_t{1} << 40) +
                                 (aligned ? 0 : static_cast<uintptr_t>(bytes_of(dtype))));
}

template <typename Call>
std::vector<LaunchNumbers> recorded(Call call) {
  cuda_emulator::RecordedLaunches record;
  if (const cudaError_t error = call()) throw std::runtime_error(cudaGetErrorString(error));
  std::vector<LaunchNumbers> numbers;
  for (const auto& [kernel, grid, block, shared_bytes] : record.launches) {
    Dl_info library;
    if (!dladdr(kernel, &library)) throw std::runtime_error("a kernel lies in no library");
    const auto offset = reinterpret_cast<uintptr_t>(kernel) - reinterpret_cast<uintptr_t>(library.dli_fbase);
    numbers.emplace_back(offset, uint64_t{grid.x} * grid.y * grid.z, uint64_t{block.x} * block.y * block.z,
                         shared_bytes);
  }
  return numbers;
}

std::vector<LaunchNumbers> conv_launches(const std::string& op, const std::string& kernel, bool tf32,
                                         bool aligned, const std::string& dtype, int64_t batch,
                                         int64_t in_channels, int64_t out_channels, int64_t groups,
                                         const std::vector<AxisNumbers>& axes) {
  const ConvProblem problem = conv_problem(dtype, batch, in_channels, out_channels, groups, axes);
  const cuda::Request request{cuda::kernel_named(kernel), tf32};
  char *const at = array(aligned, problem.dtype), *const workspace = array(true, problem.dtype);
  return recorded([&] {
    if (op == "fprop") return cuda::fprop(problem, request, at, at, {}, at, workspace, nullptr);
    if (op == "fprop, bias") return cuda::fprop(problem, request, at, at, {at}, at, workspace, nullptr);
    if (op == "dgrad") return cuda::dgrad(problem, request, at, at, at, workspace, nullptr);
    if (op == "wgrad") return cuda::wgrad(problem, request, at, at, at, workspace, nullptr);
    throw std::invalid_argument("op must not be " + op);
  });
}

std::vector<LaunchNumbers> pool_launches(const std::string& op, const std::string& kernel, bool aligned,
                                         const std::string& dtype, int64_t batch, int64_t channels,
                                         const std::vector<AxisNumbers>& axes) {
  const ConvProblem conv = conv_problem(dtype, batch, channels, channels, 1, axes);
  PoolProblem problem;
  problem.dtype = conv.dtype;
  problem.batch = problem.operand_batch = problem.position_batch = batch;
  problem.channels = channels;
  std::copy(conv.axis, conv.axis + kAxes, problem.axis);
  const cuda::PoolKernel requested =
      kernel == "reference" ? cuda::PoolKernel::kReference : cuda::PoolKernel::kVector;
  char* const at = array(aligned, problem.dtype);
  const auto position = reinterpret_cast<int32_t*>(array(aligned, DType::kF32));
  return recorded([&] {
    if (op == "bgrad")
      return cuda::bgrad({problem.dtype, batch * problem.outputs(), channels}, requested, at, at,
                         array(true, problem.dtype), nullptr);
    if (op == "max_pool") return cuda::max_pool(problem, requested, at, at, nullptr, nullptr);
    if (op == "max_pool_argmax") return cuda::max_pool(problem, requested, at, at, position, nullptr);
    if (op == "max_pool_argmax, select_and_scatter") {
      PoolProblem ruled = problem;
      ruled.position_rule = PositionRule::kSelectAndScatter;
      return cuda::max_pool(ruled, requested, at, at, position, nullptr);
    }
    if (op == "max_pool_grad") return cuda::max_pool_grad(problem, requested, at, position, at, nullptr);
    if (op == "max_pool_select") return cuda::max_pool_select(problem, requested, at, position, at, nullptr);
    if (op == "avg_pool") return cuda::avg_pool(problem, requested, at, at, nullptr);
    if (op == "avg_pool_grad") return cuda::avg_pool_grad(problem, requested, at, at, nullptr);
    throw std::invalid_argument("op must not be " + op);
  });
}

}  // namespace

NB_MODULE(_cuda_launches, module) {
  module.def(
      "conv_launches", &conv_launches, nb::arg("op"), nb::arg("kernel"), nb::arg("tf32"), nb::arg("aligned"),
      nb::arg("dtype"), nb::arg("batch"), nb::arg("in_channels"), nb::arg("out_channels"), nb::arg("groups"),
      nb::arg("axes"),
      "What a convolution's op launches: (offset of the kernel in the library, blocks, threads, bytes).");
  module.def("pool_launches", &pool_launches, nb::arg("op"), nb::arg("kernel"), nb::arg("aligned"),
             nb::arg("dtype"), nb::arg("batch"), nb::arg("channels"), nb::arg("axes"),
             "The same of a pooling op, or of the gradient of a bias over the outputs of such a problem.");
}
