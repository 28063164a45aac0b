// Computes y[n,o,c] = sum over r of x[n,i,c] * w[r,c], row by row; dgrad is the same over the transposed
// problem.
#include <memory>

#include "common_src/dispatch.h"
#include "common_src/major.h"
#include "cpu_src/depthwise/plan.h"
#include "cpu_src/kernels.h"

namespace convgrad::cpu {
namespace {

template <typename T>
void run_depthwise_rows(const DepthwisePlan& plan, int64_t first, int64_t last, const T* source,
                        const T* filter, const Epilogue& epilogue, char* result) {
  const ConvProblem& p = plan.problem;
  const DepthwiseTiles<T>& tiles = CONVGRAD_FOR_ISA(plan.isa, depthwise_tiles<T>());
  const T* bias = static_cast<const T*>(epilogue.bias);
  const int64_t C = p.in_channels, bytes = bytes_of(p.result_dtype());
  for (int64_t index = first; index < last; ++index) {
    const DepthwisePlan::Row row = plan.row(index);
    for (size_t at = 0; at < plan.across().size(); ++at) {
      const Region& region = plan.across()[at];
      const auto& taps = plan.taps(row, static_cast<int64_t>(at));
      const int window = DepthwisePlan::window_of(region);
      int size = 0;
      for (int64_t j = 0; j < region.count; j += tiles.kPixels[size]) {
        while (tiles.kPixels[size] > region.count - j) ++size;
        const int64_t source_at =
            taps.empty() ? 0 : row.source + (region.source_first + region.source_step * j) * C;
        const T* const from = source + source_at;
        const auto count = static_cast<int64_t>(taps.size());
        void* const to = result + (row.result + (region.result_first + region.result_step * j) * C) * bytes;
        if (window >= 0 && size < 2 && count > 0)
          tiles.window_pixels[window][size](from, region.source_step * C, taps.data(), count / region.taps,
                                            filter, taps[1].filter - taps[0].filter, bias, epilogue.relu, C,
                                            to, region.result_step * C, p.unrounded);
        else
          tiles.pixels[size](from, region.source_step * C, taps.data(), count, filter, bias, epilogue.relu, C,
                             to, region.result_step * C, p.unrounded);
      }
    }
  }
}

Work depthwise_activation(const ConvProblem& problem, Major filter_major, Isa isa, const void* source_data,
                          const void* filter_data, Epilogue epilogue, void* result) {
  return dispatch(problem.dtype, [&](auto stored) {
    using T = typename decltype(stored)::type;
    const auto plan = std::make_shared<const DepthwisePlan>(problem, filter_major, isa);
    const T* source = static_cast<const T*>(source_data);
    const T* filter = static_cast<const T*>(filter_data);
    const int64_t tasks = plan->tasks();
    return Work{{{tasks, [=](int64_t task) {
                    run_depthwise_rows(*plan, plan->first_row(task, tasks), plan->first_row(task + 1, tasks),
                                       source, filter, epilogue, static_cast<char*>(result));
                  }}}};
  });
}

}  // namespace

Work depthwise_fprop(const ConvProblem& problem, Isa isa, const void* x, const void* w, Epilogue epilogue,
                     void* y) {
  return depthwise_activation(problem, Major::kMN, isa, x, w, epilogue, y);
}

Work depthwise_dgrad(const ConvProblem& problem, Isa isa, const void* dy, const void* w, void* dx) {
  return depthwise_activation(problem.transpose(), Major::kK, isa, dy, w, {}, dx);
}

}  // namespace convgrad::cpu
