// Computes dw[r,c] = sum over n, o of x[n,i,c] * dy[n,o,c]: a part of the rows of dy at a time, each row's
// sums added to those of the part. A second stage adds the parts in order.
#include <algorithm>
#include <memory>

#include "common_src/dispatch.h"
#include "common_src/integers.h"
#include "common_src/major.h"
#include "cpu_src/depthwise/plan.h"
#include "cpu_src/kernels.h"
#include "cpu_src/microkernels/rows.h"
#include "cpu_src/result.h"

namespace convgrad::cpu {
namespace {

// With fewer positions, loading the first sources would take longer than what is saved. Nor is it worth it
// for rows of three taps: those of three rows are summed at once, which reads dy only once.
constexpr int64_t kWideEnough = 3;

template <typename T>
void sum_depthwise_rows(const DepthwisePlan& plan, int64_t first, int64_t last, const T* x, const T* dy,
                        Sum<T>* sums) {
  const ConvProblem& p = plan.problem;
  const DepthwiseTiles<T>& tiles = CONVGRAD_FOR_ISA(plan.isa, depthwise_tiles<T>());
  const int64_t C = p.in_channels;
  std::fill_n(sums, p.taps() * C, Sum<T>{0});
  for (int64_t index = first; index < last; ++index) {
    const DepthwisePlan::Row row = plan.row(index);
    for (size_t at = 0; at < plan.across().size(); ++at) {
      const Region& region = plan.across()[at];
      const auto& taps = plan.taps(row, static_cast<int64_t>(at));
      const T* const from = x + row.source + region.source_first * C;
      const T* const dy_row = dy + row.result + region.result_first * C;
      const int64_t x_step = region.source_step * C, dy_step = region.result_step * C;
      const int window = DepthwisePlan::window_of(region);
      if (window > 0 && region.count >= kWideEnough) {
        for (size_t tap = 0; tap < taps.size(); tap += region.taps)
          tiles.window_taps[window](from, x_step, taps[tap], taps[1].filter - taps[0].filter, dy_row, dy_step,
                                    region.count, C, sums);
        continue;
      }
      int size = 0;
      for (size_t tap = 0; tap < taps.size(); tap += tiles.kTaps[size]) {
        while (static_cast<size_t>(tiles.kTaps[size]) > taps.size() - tap) ++size;
        tiles.taps[size](from, x_step, taps.data() + tap, dy_row, dy_step, region.count, C, sums);
      }
    }
  }
}

}  // namespace

Work depthwise_wgrad(const ConvProblem& problem, Isa isa, const void* x_data, const void* dy_data,
                     void* dw_data, void* workspace) {
  return dispatch(problem.dtype, [&](auto stored) {
    using T = typename decltype(stored)::type;
    using S = Sum<T>;
    const auto plan = std::make_shared<const DepthwisePlan>(problem, Major::kMN, isa);
    const T *x = static_cast<const T*>(x_data), *dy = static_cast<const T*>(dy_data);
    const Result<T> dw(dw_data, problem);
    const int64_t parts = DepthwisePlan::wgrad_parts(problem), size = problem.taps() * problem.out_channels;
    const bool in_place = parts == 1 && dw.sums() != nullptr;
    S* const partial = in_place ? dw.sums() : static_cast<S*>(workspace);
    Work work;
    work.stages.push_back({parts, [=](int64_t part) {
                             sum_depthwise_rows(*plan, plan->first_row(part, parts),
                                                plan->first_row(part + 1, parts), x, dy,
                                                partial + part * size);
                           }});
    if (in_place) return work;
    constexpr int64_t kNumbersOfTask = 1 << 13;
    work.stages.push_back(
        {divide_up(size, kNumbersOfTask), [=](int64_t task) {
           const int64_t first = task * kNumbersOfTask, count = std::min(kNumbersOfTask, size - first);
           const auto& sums = row_conversions_of<S>(plan->isa);
           S* const total = partial + first;
           for (int64_t part = 1; part < parts; ++part) sums.add(total + part * size, 0, total, 0, 1, count);
           (dw + first).store(row_conversions_of<T>(plan->isa), sums, total, 0, 0, 1, count);
         }});
    return work;
  });
}

}  // namespace convgrad::cpu
