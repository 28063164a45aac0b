// Computes max pooling and its gradient over vectors of channels or pixels, run by run (plan.h).
#include <memory>

#include "common_src/dispatch.h"
#include "cpu_src/kernels.h"
#include "cpu_src/pool/plan.h"

namespace convgrad::cpu {

Work vector_max_pool(const PoolProblem& p, Isa isa, const void* x_data, void* y_data, int32_t* position) {
  return dispatch(p.dtype, [&](auto stored) {
    using T = typename decltype(stored)::type;
    const T* x = static_cast<const T*>(x_data);
    T* y = static_cast<T*>(y_data);
    const MaxPoolRuns<T>& runs = CONVGRAD_FOR_ISA(isa, max_pool_runs<T>());
    const auto plan = std::make_shared<const PoolPlan>(p, false, runs.lanes);
    return Work{{{plan->tasks(), [=, &runs](int64_t task) {
                    const PoolProblem& p = plan->problem();
                    const int64_t C = p.channels;
                    plan->for_each_run(task, [&](PoolPlan::Row& row, const PoolPiece& piece) {
                      const int64_t source =
                          (row.image * p.inputs() + row.source_position + piece.source_first) * C;
                      const int64_t at =
                          (row.image * p.outputs() + row.result_position + piece.result_first) * C;
                      row.run.source_end = x + p.batch * p.inputs() * C;
                      runs.forward(row.run, x + source, y + at, position ? position + at : nullptr);
                    });
                  }}}};
  });
}

Work vector_max_pool_grad(const PoolProblem& p, Isa isa, const void* dy_data, const int32_t* position,
                          void* dx_data) {
  return dispatch(p.dtype, [&](auto stored) {
    using T = typename decltype(stored)::type;
    const T* dy = static_cast<const T*>(dy_data);
    T* dx = static_cast<T*>(dx_data);
    const MaxPoolRuns<T>& runs = CONVGRAD_FOR_ISA(isa, max_pool_runs<T>());
    const auto plan = std::make_shared<const PoolPlan>(p, true, runs.lanes);
    return Work{{{plan->tasks(), [=, &runs](int64_t task) {
                    const PoolProblem& p = plan->problem();
                    const int64_t C = p.channels, image = p.outputs() * C;
                    plan->for_each_run(task, [&](PoolPlan::Row& row, const PoolPiece& piece) {
                      const int64_t source = (row.source_position + piece.source_first) * C;
                      const int64_t at =
                          (row.image * p.inputs() + row.result_position + piece.result_first) * C;
                      row.run.source_end = dy + p.operand_batch * image;
                      row.run.position_end = position + p.position_batch * image;
                      runs.gradient(row.run, dy + row.image % p.operand_batch * image + source,
                                    position + row.image % p.position_batch * image + source, dx + at);
                    });
                  }}}};
  });
}

}  // namespace convgrad::cpu
