// Runs fprop, dgrad and wgrad with the kernel that the plan chooses. If an array is empty, every sum is empty
// and the result is written here; only the reference fprop handles sizes of zero, for the epilogue of empty
// sums.
#include <cstring>
#include <utility>

#include "cpu_src/kernels.h"
#include "cpu_src/met_taps.h"
#include "cpu_src/plan.h"

namespace convgrad::cpu {
namespace {

// The number of elements of each array.
struct Sizes {
  int64_t x, w, y;

  explicit Sizes(const ConvProblem& p)
      : x(p.batch * p.inputs() * p.in_channels),
        w(p.taps() * p.group_in() * p.out_channels),
        y(p.batch * p.outputs() * p.out_channels) {}
  bool any_empty() const { return x == 0 || w == 0 || y == 0; }
};

Work zeros(void* result, int64_t count, DType dtype) {
  const size_t bytes = static_cast<size_t>(count * bytes_of(dtype));
  return {{{bytes > 0, [=](int64_t) { std::memset(result, 0, bytes); }}}};
}

const void* skip(const void* numbers, int64_t count, DType dtype) {
  return numbers == nullptr ? nullptr : static_cast<const char*>(numbers) + count * bytes_of(dtype);
}

// Adds a task that writes zeros to the filter's gradient outside of the taps that are met.
void add_zeros(const Sizes& all, const MetTaps& met, void* dw, Work& work) {
  const int64_t count = Sizes(met.problem).w, size = bytes_of(met.problem.result_dtype());
  if (count == all.w) return;
  char* const begin = static_cast<char*>(dw);
  char* const after = begin + (met.in_front + count) * size;
  Stage& last = work.stages.back();
  const int64_t tasks = last.tasks++;
  last.run = [=, run = std::move(last.run)](int64_t task) {
    if (task < tasks) return run(task);
    std::memset(begin, 0, met.in_front * size);
    std::memset(after, 0, (all.w - met.in_front - count) * size);
  };
}

}  // namespace

Work fprop(const ConvProblem& given, Request request, const void* x, const void* w, Epilogue epilogue,
           void* y, void* workspace) {
  if (const Sizes sizes(given); sizes.any_empty())
    return epilogue.any() ? reference_fprop(given, x, w, epilogue, y)
                          : zeros(y, sizes.y, given.result_dtype());
  const Kernel kernel = plan(Op::kFprop, given, request).kernel;
  const MetTaps met = met_taps(given);
  const ConvProblem& problem = met.problem;
  w = skip(w, met.in_front, problem.dtype);
  if (kernel == Kernel::kReference) return reference_fprop(problem, x, w, epilogue, y);
  if (kernel == Kernel::kGrouped) return grouped_fprop(problem, request.isa, x, w, epilogue, y, workspace);
  if (kernel == Kernel::kDepthwise) return depthwise_fprop(problem, request.isa, x, w, epilogue, y);
  if (kernel == Kernel::kPlanar) return planar_fprop(problem, request.isa, x, w, epilogue, y);
  if (kernel == Kernel::kPairs) return pairs_fprop(problem, request.isa, x, w, epilogue, y);
  if (kernel == Kernel::kWinograd) return winograd_fprop(problem, request.isa, x, w, epilogue, y, workspace);
  if (kernel == Kernel::kDot) return dot_fprop(problem, request.isa, x, w, epilogue, y, workspace);
  return tiled_fprop(problem, request.isa, x, w, epilogue, y, workspace);
}

Work dgrad(const ConvProblem& given, Request request, const void* dy, const void* w, void* dx,
           void* workspace) {
  if (const Sizes sizes(given); sizes.any_empty()) return zeros(dx, sizes.x, given.result_dtype());
  const Kernel kernel = plan(Op::kDgrad, given, request).kernel;
  const MetTaps met = met_taps(given);
  const ConvProblem& problem = met.problem;
  w = skip(w, met.in_front, problem.dtype);
  if (kernel == Kernel::kReference) return reference_dgrad(problem, dy, w, dx);
  if (kernel == Kernel::kGrouped) return grouped_dgrad(problem, request.isa, dy, w, dx, workspace);
  if (kernel == Kernel::kDepthwise) return depthwise_dgrad(problem, request.isa, dy, w, dx);
  if (kernel == Kernel::kPlanar) return planar_dgrad(problem, request.isa, dy, w, dx);
  if (kernel == Kernel::kPairs) return pairs_dgrad(problem, request.isa, dy, w, dx);
  if (kernel == Kernel::kWinograd) return winograd_dgrad(problem, request.isa, dy, w, dx, workspace);
  if (kernel == Kernel::kDot) return dot_dgrad(problem, request.isa, dy, w, dx);
  return tiled_dgrad(problem, request.isa, dy, w, dx, workspace);
}

Work wgrad(const ConvProblem& given, Request request, const void* x, const void* dy, void* dw,
           void* workspace) {
  if (const Sizes sizes(given); sizes.any_empty()) return zeros(dw, sizes.w, given.result_dtype());
  const Kernel kernel = plan(Op::kWgrad, given, request).kernel;
  const MetTaps met = met_taps(given);
  const ConvProblem& problem = met.problem;
  void* const met_dw = const_cast<void*>(skip(dw, met.in_front, problem.result_dtype()));
  Work work;
  if (kernel == Kernel::kReference)
    work = reference_wgrad(problem, x, dy, met_dw);
  else if (kernel == Kernel::kPairs)
    work = pairs_wgrad(problem, request.isa, x, dy, met_dw);
  else if (kernel == Kernel::kWinograd)
    work = winograd_wgrad(problem, request.isa, x, dy, met_dw, workspace);
  else if (kernel == Kernel::kGrouped)
    work = grouped_wgrad(problem, request.isa, x, dy, met_dw, workspace);
  else if (kernel == Kernel::kDepthwise)
    work = depthwise_wgrad(problem, request.isa, x, dy, met_dw, workspace);
  else
    work = tiled_wgrad(problem, request.isa, x, dy, met_dw, workspace);
  add_zeros(Sizes(given), met, dw, work);
  return work;
}

}  // namespace convgrad::cpu
