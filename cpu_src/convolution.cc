// fprop, dgrad and wgrad by the kernel that the plan chooses. Where an array is empty every sum is, and no
// kernel but fprop's direct one, for the epilogue of such sums, has to bear sizes of zero.
#include <cstring>

#include "cpu_src/kernels.h"
#include "cpu_src/plan.h"

namespace convgrad::cpu {
namespace {

// Numbers of each array.
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

}  // namespace

Work fprop(const ConvProblem& problem, Choice choice, const void* x, const void* w, Epilogue epilogue,
           void* y, void* workspace) {
  if (const Sizes sizes(problem); sizes.any_empty())
    return epilogue.any() ? direct_fprop(problem, x, w, epilogue, y)
                          : zeros(y, sizes.y, problem.result_dtype());
  const Kernel kernel = plan(Op::kFprop, problem, choice).kernel;
  if (kernel == Kernel::kDirect) return direct_fprop(problem, x, w, epilogue, y);
  if (kernel == Kernel::kGrouped) return grouped_fprop(problem, choice.isa, x, w, epilogue, y, workspace);
  if (kernel == Kernel::kDot) return dot_fprop(problem, choice.isa, x, w, epilogue, y, workspace);
  return tiled_fprop(problem, choice.isa, x, w, epilogue, y, workspace);
}

Work dgrad(const ConvProblem& problem, Choice choice, const void* dy, const void* w, void* dx,
           void* workspace) {
  if (const Sizes sizes(problem); sizes.any_empty()) return zeros(dx, sizes.x, problem.result_dtype());
  const Kernel kernel = plan(Op::kDgrad, problem, choice).kernel;
  if (kernel == Kernel::kDirect) return direct_dgrad(problem, dy, w, dx);
  if (kernel == Kernel::kGrouped) return grouped_dgrad(problem, choice.isa, dy, w, dx, workspace);
  if (kernel == Kernel::kDot) return dot_dgrad(problem, choice.isa, dy, w, dx);
  return tiled_dgrad(problem, choice.isa, dy, w, dx, workspace);
}

Work wgrad(const ConvProblem& problem, Choice choice, const void* x, const void* dy, void* dw,
           void* workspace) {
  if (const Sizes sizes(problem); sizes.any_empty()) return zeros(dw, sizes.w, problem.result_dtype());
  const Kernel kernel = plan(Op::kWgrad, problem, choice).kernel;
  if (kernel == Kernel::kDirect) return direct_wgrad(problem, x, dy, dw);
  if (kernel == Kernel::kGrouped) return grouped_wgrad(problem, choice.isa, x, dy, dw, workspace);
  return tiled_wgrad(problem, choice.isa, x, dy, dw, workspace);
}

}  // namespace convgrad::cpu
