// Computes average pooling and its gradient over vectors of channels or pixels, run by run (plan.h).
#include <memory>
#include <vector>

#include "common_src/dispatch.h"
#include "cpu_src/kernels.h"
#include "cpu_src/pool/plan.h"

namespace convgrad::cpu {

Work vector_avg_pool(const PoolProblem& p, Isa isa, const void* x_data, void* y_data) {
  return dispatch(p.dtype, [&](auto stored) {
    using T = typename decltype(stored)::type;
    const T* x = static_cast<const T*>(x_data);
    T* y = static_cast<T*>(y_data);
    const AvgPoolRuns<T>& runs = CONVGRAD_FOR_ISA(isa, avg_pool_runs<T>());
    const auto plan = std::make_shared<const PoolPlan>(p, false, runs.lanes);
    return Work{
        {{plan->tasks(), [=, &runs](int64_t task) {
            const PoolProblem& p = plan->problem();
            const int64_t C = p.channels;
            plan->for_each_run(task, [&](PoolPlan::Row& row, const PoolPiece& piece) {
              const int64_t source = (row.image * p.inputs() + row.source_position + piece.source_first) * C;
              const int64_t at = (row.image * p.outputs() + row.result_position + piece.result_first) * C;
              row.run.source_end = x + p.batch * p.inputs() * C;
              runs.forward(row.run, static_cast<Sum<T>>(row.divisor * piece.divisor), x + source, y + at);
            });
          }}}};
  });
}

Work vector_avg_pool_grad(const PoolProblem& p, Isa isa, const void* dy_data, void* dx_data) {
  return dispatch(p.dtype, [&](auto stored) {
    using T = typename decltype(stored)::type;
    using S = Sum<T>;
    const T* dy = static_cast<const T*>(dy_data);
    T* dx = static_cast<T*>(dx_data);
    const AvgPoolRuns<T>& runs = CONVGRAD_FOR_ISA(isa, avg_pool_runs<T>());
    struct Planned {
      PoolPlan plan;
      std::vector<S> weights[kAxes];  // 1 / divisor of each output
    };
    auto planned = std::make_shared<Planned>(Planned{PoolPlan(p, true, runs.lanes), {}});
    for (int axis = 0; axis < kAxes; ++axis) {
      for (const int64_t divisor : planned->plan.divisors(axis))
        planned->weights[axis].push_back(S{1} / static_cast<S>(divisor));
    }
    return Work{{{planned->plan.tasks(), [=, &runs](int64_t task) {
                    const PoolPlan& plan = planned->plan;
                    const PoolProblem& p = plan.problem();
                    const int64_t C = p.channels;
                    plan.for_each_run(task, [&](PoolPlan::Row& row, const PoolPiece& piece) {
                      PoolRun& run = row.run;
                      const int64_t source =
                          (row.image * p.outputs() + row.source_position + piece.source_first) * C;
                      const int64_t at =
                          (row.image * p.inputs() + row.result_position + piece.result_first) * C;
                      run.source_end = dy + p.batch * p.outputs() * C;
                      PoolWeights<S> weights;
                      if (row.divisor * piece.divisor != 0) {
                        weights.uniform = S{1} / static_cast<S>(row.divisor * piece.divisor);
                      } else {
                        const int64_t first[kAxes] = {row.first[0], row.first[1], piece.source_first};
                        for (int axis = 0; axis < kAxes; ++axis)
                          weights.axis[axis] = planned->weights[axis].data() + first[axis];
                        weights.tap_step[0] = row.tap_step[0];
                        weights.tap_step[1] = row.tap_step[1];
                        weights.tap_step[2] = piece.tap_step;
                      }
                      runs.gradient(run, weights, dy + source, dx + at);
                    });
                  }}}};
  });
}

}  // namespace convgrad::cpu
