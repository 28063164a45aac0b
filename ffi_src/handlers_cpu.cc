// The CPU's FFI handlers: decode, plan, launch.
#include "ffi_src/handlers_cpu.h"

#include <exception>
#include <stdexcept>
#include <string>
#include <utility>

#include "cpu_src/batch_norm/plan.h"
#include "cpu_src/kernels.h"
#include "ffi_src/call.h"
#include "ffi_src/launch_cpu.h"

namespace convgrad::cpu {
namespace {

Request request_of(const Call& call) {
  Request request = request_named(decode_kernel(call.attributes));
  request.below_highest = decode_below_highest(call.attributes);
  return request;
}

Request pool_request_of(const Call& call) { return pool_request_named(decode_kernel(call.attributes)); }

void* conv_workspace(const Call& call, Op op, const ConvProblem& problem, Request request) {
  return checked_workspace(call.result(1), conv_workspace_bytes(op, problem, request));
}

Work plan_fprop(const Call& call) {
  call.expect(call.operands() == 3 ? 3 : 2, 2);
  const Request request = request_of(call);
  const ffi::AnyBuffer x = call.operand(0), w = call.operand(1), y = call.result(0);
  const ConvProblem problem = decode_conv(call.attributes, x, w, y, ConvArray::kY);
  return fprop(problem, request, x.untyped_data(), w.untyped_data(), call.epilogue(problem), y.untyped_data(),
               conv_workspace(call, Op::kFprop, problem, request));
}

Work plan_dgrad(const Call& call) {
  call.expect(2, 2);
  const Request request = request_of(call);
  const ffi::AnyBuffer dy = call.operand(0), w = call.operand(1), dx = call.result(0);
  const ConvProblem problem = decode_conv(call.attributes, dx, w, dy, ConvArray::kX);
  return dgrad(problem, request, dy.untyped_data(), w.untyped_data(), dx.untyped_data(),
               conv_workspace(call, Op::kDgrad, problem, request));
}

Work plan_wgrad(const Call& call) {
  call.expect(2, 2);
  const Request request = request_of(call);
  const ffi::AnyBuffer x = call.operand(0), dy = call.operand(1), dw = call.result(0);
  const ConvProblem problem = decode_conv(call.attributes, x, dw, dy, ConvArray::kW);
  return wgrad(problem, request, x.untyped_data(), dy.untyped_data(), dw.untyped_data(),
               conv_workspace(call, Op::kWgrad, problem, request));
}

Work plan_bgrad(const Call& call) {
  call.expect(1, 2);
  const ffi::AnyBuffer dy = call.operand(0), db = call.result(0);
  const BiasProblem problem = decode_bias(call.attributes, dy, db);
  return bgrad(problem, pool_request_of(call), dy.untyped_data(), db.untyped_data(),
               checked_workspace(call.result(1), bgrad_workspace_bytes(problem)));
}

Work plan_max_pool(const Call& call) {
  call.expect(1, 1);
  const ffi::AnyBuffer x = call.operand(0), y = call.result(0);
  return max_pool(decode_pool(call.attributes, x, y), pool_request_of(call), x.untyped_data(),
                  y.untyped_data(), nullptr);
}

Work plan_max_pool_argmax(const Call& call) {
  call.expect(1, 2);
  const ffi::AnyBuffer x = call.operand(0), y = call.result(0);
  return max_pool(decode_max_pool_argmax(call.attributes, x, y), pool_request_of(call), x.untyped_data(),
                  y.untyped_data(), checked_position(call.result(1), y));
}

Work plan_max_pool_grad(const Call& call) {
  call.expect(2, 1);
  const ffi::AnyBuffer dy = call.operand(0), dx = call.result(0);
  return max_pool_grad(decode_max_pool_grad(call.attributes, dy, call.operand(1), dx), pool_request_of(call),
                       dy.untyped_data(), call.positions(1), dx.untyped_data());
}

Work plan_max_pool_select(const Call& call) {
  call.expect(2, 1);
  pool_request_of(call);  // throws on unknown names
  const ffi::AnyBuffer t = call.operand(0), selected = call.result(0);
  return max_pool_select(decode_max_pool_select(call.attributes, t, call.operand(1), selected),
                         t.untyped_data(), call.positions(1), selected.untyped_data());
}

Work plan_avg_pool(const Call& call) {
  call.expect(1, 1);
  const ffi::AnyBuffer x = call.operand(0), y = call.result(0);
  return avg_pool(decode_avg_pool(call.attributes, x, y), pool_request_of(call), x.untyped_data(),
                  y.untyped_data());
}

Work plan_avg_pool_grad(const Call& call) {
  call.expect(1, 1);
  const ffi::AnyBuffer dy = call.operand(0), dx = call.result(0);
  return avg_pool_grad(decode_avg_pool(call.attributes, dx, dy), pool_request_of(call), dy.untyped_data(),
                       dx.untyped_data());
}

// Returns mean, mul, bias, slope, offset, as many as the call has, from operand `first` on.
NormVectors norm_vectors(const Call& call, const NormProblem& problem, size_t first) {
  const auto vector = [&](size_t index) -> const void* {
    const size_t place = first + index;
    return place < call.operands() ? checked_channels(call.operand(place), problem) : nullptr;
  };
  return {vector(0), vector(1), vector(2), vector(3), vector(4)};
}

Work plan_norm_moments(const Call& call) {
  call.expect(1, 3);
  const ffi::AnyBuffer x = call.operand(0);
  const NormProblem problem = decode_norm(call.attributes, x);
  return norm_moments(problem, pool_request_of(call), x.untyped_data(),
                      checked_channels(call.result(0), problem), checked_channels(call.result(1), problem),
                      checked_workspace(call.result(2), norm_workspace_bytes(problem, false)));
}

Work plan_normalize(const Call& call) {
  call.expect(4, 1);
  const ffi::AnyBuffer x = call.operand(0);
  const NormProblem problem = decode_norm(call.attributes, x);
  return normalize(problem, pool_request_of(call), x.untyped_data(), norm_vectors(call, problem, 1),
                   checked_like(call.result(0), x));
}

Work plan_norm_sums(const Call& call) {
  call.expect(5, 3);
  const ffi::AnyBuffer x = call.operand(0);
  const NormProblem problem = decode_norm(call.attributes, x);
  return norm_sums(problem, pool_request_of(call), x.untyped_data(), checked_like(call.operand(1), x),
                   norm_vectors(call, problem, 2), checked_channels(call.result(0), problem),
                   checked_channels(call.result(1), problem),
                   checked_workspace(call.result(2), norm_workspace_bytes(problem, false)));
}

Work plan_norm_gradient(const Call& call) {
  call.expect(7, 1);
  const ffi::AnyBuffer x = call.operand(0);
  const NormProblem problem = decode_norm(call.attributes, x);
  return norm_gradient(problem, pool_request_of(call), x.untyped_data(), checked_like(call.operand(1), x),
                       norm_vectors(call, problem, 2), checked_like(call.result(0), x));
}

ffi::Future failed(ffi::Error error) {
  ffi::Promise promise;
  ffi::Future future(promise);
  promise.SetError(std::move(error));
  return future;
}

// The handler of one op. It turns every exception into the call's error.
template <Work (*kPlan)(const Call&)>
XLA_FFI_Error* handler(XLA_FFI_CallFrame* frame) {
  static auto* bound = ffi::Ffi::Bind()
                           .Ctx<ffi::ThreadPool>()
                           .Attrs()
                           .RemainingArgs()
                           .RemainingRets()
                           .To([](ffi::ThreadPool pool, ffi::Dictionary attributes,
                                  ffi::RemainingArgs operands, ffi::RemainingRets results) -> ffi::Future {
                             try {
                               return launch(pool, kPlan(Call(attributes, operands, results)));
                             } catch (const std::invalid_argument& error) {
                               return failed(ffi::Error::InvalidArgument(error.what()));
                             } catch (const std::exception& error) {
                               return failed(ffi::Error::Internal(error.what()));
                             }
                           })
                           .release();
  return bound->Call(frame);
}

}  // namespace

std::map<std::string, XLA_FFI_Handler*> handlers() {
  return {
      {"fprop", handler<plan_fprop>},
      {"dgrad", handler<plan_dgrad>},
      {"wgrad", handler<plan_wgrad>},
      {"bgrad", handler<plan_bgrad>},
      {"max_pool", handler<plan_max_pool>},
      {"max_pool_argmax", handler<plan_max_pool_argmax>},
      {"max_pool_grad", handler<plan_max_pool_grad>},
      {"max_pool_select", handler<plan_max_pool_select>},
      {"avg_pool", handler<plan_avg_pool>},
      {"avg_pool_grad", handler<plan_avg_pool_grad>},
      {"norm_moments", handler<plan_norm_moments>},
      {"normalize", handler<plan_normalize>},
      {"norm_sums", handler<plan_norm_sums>},
      {"norm_gradient", handler<plan_norm_gradient>},
  };
}

}  // namespace convgrad::cpu
