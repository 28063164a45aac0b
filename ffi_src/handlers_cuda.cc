// The CUDA FFI handlers: decode, then launch on XLA's stream. They neither allocate nor wait.
#include "ffi_src/handlers_cuda.h"

#include <atomic>
#include <cstdint>
#include <exception>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "cuda_src/kernels.h"
#include "ffi_src/call.h"
#include "ffi_src/stream.h"

namespace convgrad::cuda {
namespace {

Request request_of(const Call& call) {
  return {kernel_named(decode_kernel(call.attributes)), decode_below_highest(call.attributes)};
}

PoolKernel pool_kernel_of(const Call& call) { return pool_kernel_named(decode_kernel(call.attributes)); }

// Returns the workspace result of a convolution's call.
void* workspace_of(const Call& call, Op op, const ConvProblem& problem, Request request) {
  return checked_workspace(call.result(1), conv_workspace_bytes(op, problem, request));
}

cudaError_t launch_fprop(const Call& call, cudaStream_t stream) {
  call.expect(call.operands() == 3 ? 3 : 2, 2);
  const ffi::AnyBuffer x = call.operand(0), w = call.operand(1), y = call.result(0);
  const ConvProblem problem = decode_conv(call.attributes, x, w, y, ConvArray::kY);
  const Request request = request_of(call);
  return fprop(problem, request, x.untyped_data(), w.untyped_data(), call.epilogue(problem), y.untyped_data(),
               workspace_of(call, Op::kFprop, problem, request), stream);
}

cudaError_t launch_dgrad(const Call& call, cudaStream_t stream) {
  call.expect(2, 2);
  const ffi::AnyBuffer dy = call.operand(0), w = call.operand(1), dx = call.result(0);
  const ConvProblem problem = decode_conv(call.attributes, dx, w, dy, ConvArray::kX);
  const Request request = request_of(call);
  return dgrad(problem, request, dy.untyped_data(), w.untyped_data(), dx.untyped_data(),
               workspace_of(call, Op::kDgrad, problem, request), stream);
}

cudaError_t launch_wgrad(const Call& call, cudaStream_t stream) {
  call.expect(2, 2);
  const ffi::AnyBuffer x = call.operand(0), dy = call.operand(1), dw = call.result(0);
  const ConvProblem problem = decode_conv(call.attributes, x, dw, dy, ConvArray::kW);
  const Request request = request_of(call);
  return wgrad(problem, request, x.untyped_data(), dy.untyped_data(), dw.untyped_data(),
               workspace_of(call, Op::kWgrad, problem, request), stream);
}

cudaError_t launch_wgrad_bgrad(const Call& call, cudaStream_t stream) {
  call.expect(2, 3);
  const ffi::AnyBuffer x = call.operand(0), dy = call.operand(1), dw = call.result(0), db = call.result(1);
  const ConvProblem problem = decode_conv(call.attributes, x, dw, dy, ConvArray::kW);
  const Request request = request_of(call);
  return wgrad_bgrad(
      problem, request, x.untyped_data(), dy.untyped_data(), dw.untyped_data(), checked_bias(db, problem, dy),
      checked_workspace(call.result(2), wgrad_bgrad_workspace_bytes(problem, request)), stream);
}

cudaError_t launch_bgrad(const Call& call, cudaStream_t stream) {
  call.expect(1, 2);
  const ffi::AnyBuffer dy = call.operand(0), db = call.result(0);
  const BiasProblem problem = decode_bias(call.attributes, dy, db);
  return bgrad(problem, pool_kernel_of(call), dy.untyped_data(), db.untyped_data(),
               checked_workspace(call.result(1), bgrad_workspace_bytes(problem)), stream);
}

cudaError_t launch_max_pool(const Call& call, cudaStream_t stream) {
  call.expect(1, 1);
  const ffi::AnyBuffer x = call.operand(0), y = call.result(0);
  return max_pool(decode_pool(call.attributes, x, y), pool_kernel_of(call), x.untyped_data(),
                  y.untyped_data(), nullptr, stream);
}

cudaError_t launch_max_pool_argmax(const Call& call, cudaStream_t stream) {
  call.expect(1, 2);
  const ffi::AnyBuffer x = call.operand(0), y = call.result(0);
  return max_pool(decode_max_pool_argmax(call.attributes, x, y), pool_kernel_of(call), x.untyped_data(),
                  y.untyped_data(), checked_position(call.result(1), y), stream);
}

cudaError_t launch_max_pool_grad(const Call& call, cudaStream_t stream) {
  call.expect(2, 1);
  const ffi::AnyBuffer dy = call.operand(0), dx = call.result(0);
  return max_pool_grad(decode_max_pool_grad(call.attributes, dy, call.operand(1), dx), pool_kernel_of(call),
                       dy.untyped_data(), call.positions(1), dx.untyped_data(), stream);
}

cudaError_t launch_max_pool_select(const Call& call, cudaStream_t stream) {
  call.expect(2, 1);
  const ffi::AnyBuffer t = call.operand(0), selected = call.result(0);
  return max_pool_select(decode_max_pool_select(call.attributes, t, call.operand(1), selected),
                         pool_kernel_of(call), t.untyped_data(), call.positions(1), selected.untyped_data(),
                         stream);
}

cudaError_t launch_avg_pool(const Call& call, cudaStream_t stream) {
  call.expect(1, 1);
  const ffi::AnyBuffer x = call.operand(0), y = call.result(0);
  return avg_pool(decode_avg_pool(call.attributes, x, y), pool_kernel_of(call), x.untyped_data(),
                  y.untyped_data(), stream);
}

cudaError_t launch_avg_pool_grad(const Call& call, cudaStream_t stream) {
  call.expect(1, 1);
  const ffi::AnyBuffer dy = call.operand(0), dx = call.result(0);
  return avg_pool_grad(decode_avg_pool(call.attributes, dx, dy), pool_kernel_of(call), dy.untyped_data(),
                       dx.untyped_data(), stream);
}

// The number of calls that have reached a handler.
std::atomic<int64_t> calls = 0;

// The handler of one op. It turns every exception into the call's error. Equal calls launch equal kernels, so
// XLA may record them in a command buffer.
template <cudaError_t (*kLaunch)(const Call&, cudaStream_t)>
XLA_FFI_Error* handler(XLA_FFI_CallFrame* frame) {
  static auto* bound = ffi::Ffi::Bind()
                           .Ctx<StreamContext>()
                           .Attrs()
                           .RemainingArgs()
                           .RemainingRets()
                           .To(
                               [](cudaStream_t stream, ffi::Dictionary attributes,
                                  ffi::RemainingArgs operands, ffi::RemainingRets results) -> ffi::Error {
                                 calls.fetch_add(1, std::memory_order_relaxed);
                                 try {
                                   const cudaError_t error =
                                       kLaunch(Call(attributes, operands, results), stream);
                                   if (error == cudaSuccess) return ffi::Error::Success();
                                   return ffi::Error::Internal(std::string("jax_convgrad: CUDA: ") +
                                                               cudaGetErrorString(error));
                                 } catch (const std::invalid_argument& error) {
                                   return ffi::Error::InvalidArgument(error.what());
                                 } catch (const std::exception& error) {
                                   return ffi::Error::Internal(error.what());
                                 } catch (...) {
                                   return ffi::Error::Internal("jax_convgrad: an unknown exception");
                                 }
                               },
                               {ffi::Traits::kCmdBufferCompatible})
                           .release();
  return bound->Call(frame);
}

}  // namespace

int64_t handler_calls() { return calls.load(std::memory_order_relaxed); }

std::map<std::string, XLA_FFI_Handler*> handlers() {
  return {
      {"fprop", handler<launch_fprop>},
      {"dgrad", handler<launch_dgrad>},
      {"wgrad", handler<launch_wgrad>},
      {"wgrad_bgrad", handler<launch_wgrad_bgrad>},
      {"bgrad", handler<launch_bgrad>},
      {"max_pool", handler<launch_max_pool>},
      {"max_pool_argmax", handler<launch_max_pool_argmax>},
      {"max_pool_grad", handler<launch_max_pool_grad>},
      {"max_pool_select", handler<launch_max_pool_select>},
      {"avg_pool", handler<launch_avg_pool>},
      {"avg_pool_grad", handler<launch_avg_pool_grad>},
  };
}

}  // namespace convgrad::cuda
