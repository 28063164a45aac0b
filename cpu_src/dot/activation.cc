// Computes y[n,o,k] = sum over r, c of x[n,i,c] * w[r,c,k] with a vector's lanes along c; dgrad is the same
// over the transposed problem, along k.
//
// This serves results of few channels, which would leave most lanes of tiled/activation.cc empty, and dgrad
// over few positions, because w[r,c,:] is read as stored while the tiled kernel needs a transposed copy.
// Boxes and tiles are those of the tiled kernel; a panel is a few single channels.
#include <algorithm>
#include <memory>
#include <vector>

#include "common_src/dispatch.h"
#include "common_src/integers.h"
#include "common_src/major.h"
#include "cpu_src/cleared_results.h"
#include "cpu_src/kernels.h"
#include "cpu_src/microkernels/dot_tile.h"
#include "cpu_src/microkernels/rows.h"
#include "cpu_src/result.h"
#include "cpu_src/tiled/activation_plan.h"
#include "cpu_src/tiled/packed_filter.h"
#include "cpu_src/tiled/terms.h"

namespace convgrad::cpu {
namespace {

// Terms that are added before they join the rest; each lane gets its share of them.
constexpr int64_t kDotRun = 4096;

// The place of one result channel's filter: element (tap, source) is at first(group, channel) + tap_at(tap) +
// source.
struct DotFilter {
  const ActivationPlan& plan;
  int64_t sources, results, channel_step;

  explicit DotFilter(const ActivationPlan& plan)
      : plan(plan),
        sources(plan.problem.group_in()),
        results(plan.problem.group_out()),
        // dgrad reads w[r,c,k], whose rows hold all groups' k; fprop reads a copy in the order [group, k, r,
        // c].
        channel_step(plan.filter_major == Major::kK ? plan.problem.in_channels : plan.filter_rows()) {}

  int64_t first(int64_t group, int64_t channel) const {
    return plan.filter_major == Major::kK ? channel * channel_step + group * sources
                                          : (group * results + channel) * channel_step;
  }
  int64_t tap_at(int64_t packed_tap) const {
    return plan.filter_major == Major::kK ? plan.filter_tap(packed_tap) * results * channel_step
                                          : packed_tap * sources;
  }
};

template <typename T>
void pack_part(const ActivationPlan& plan, int64_t part, const T* filter, T* packed) {
  // A part is one tap of one group.
  const ConvProblem& p = plan.problem;
  const int64_t sources = p.group_in(), results = p.group_out();
  const int64_t group = part / plan.met_taps(), packed_tap = plan.met_tap(part % plan.met_taps());
  const DotFilter place(plan);
  const T* src = filter + plan.filter_tap(packed_tap) * sources * p.out_channels + group * results;
  for (int64_t k = 0; k < results; ++k) {
    T* dst = packed + place.first(group, k) + place.tap_at(packed_tap);
    for (int64_t c = 0; c < sources; ++c) dst[c] = src[c * p.out_channels + k];
  }
}

template <typename T>
void run_dot_task(const ActivationPlan& plan, int64_t task, const T* source, const T* filter,
                  const Epilogue& epilogue, Result<T> result) {
  using S = Sum<T>;
  const ConvProblem& p = plan.problem;
  const ActivationTask range = plan.task(task);
  const DotTiles<T>& tiles = dot_tiles_of<T>(plan.isa);
  const RowConversions<T>& rows = row_conversions_of<T>(plan.isa);
  const DotFilter place(plan);
  S sums[kMaxDotPixels * kMaxDotChannels];
  Terms terms;
  for (int64_t at = range.first_tile; at < range.last_tile;) {
    const Box box = plan.box_of(at);
    const int64_t last = std::min(range.last_tile, box.first_tile + box.tiles);
    const bool joined = plan.packed && p.groups == 1 && box.region[2]->tap_source_step == 1;
    list_terms(plan, box, joined, kDotRun, terms, [&](int64_t tap) { return place.tap_at(tap); }, 1);
    const int64_t source_step = box.source_step[box.along], result_step = box.result_step[box.along];
    for (int64_t panel = range.first_panel; panel < range.last_panel; ++panel) {
      const int64_t group = panel / plan.panels, first = panel % plan.panels * plan.panel_width();
      const int64_t channels = std::min(plan.panel_width(), p.group_out() - first);
      for (int64_t tile = at; tile < last; ++tile) {
        const TilePlace tile_place = box.place(tile);
        for (size_t run = 0; run + 1 < terms.runs.size(); ++run) {
          tiles.tile[channels][tile_place.pixels](
              source + tile_place.source + group * p.group_in(), filter + place.first(group, first),
              terms.segments.data() + terms.runs[run], terms.runs[run + 1] - terms.runs[run], source_step,
              place.channel_step, sums, run > 0);
        }
        const int64_t first_channel = group * p.group_out() + first;
        if (epilogue.any()) rows.finish(epilogue, first_channel, sums, channels, tile_place.pixels, channels);
        const Result<T> dst = result + tile_place.result + first_channel;
        for (int64_t m = 0; m < tile_place.pixels; ++m) {
          for (int64_t k = 0; k < channels; ++k) dst.store_one(m * result_step + k, sums[m * channels + k]);
        }
      }
    }
    at = last;
  }
}

Work dot_activation(const ConvProblem& problem, Major filter_major, Isa isa, const void* source_data,
                    const void* filter_data, Epilogue epilogue, void* result_data, void* workspace) {
  return dispatch(problem.dtype, [&](auto stored) {
    using T = typename decltype(stored)::type;
    const auto plan = std::make_shared<const ActivationPlan>(problem, filter_major, LanesAre::kSources, isa);
    const T* source = static_cast<const T*>(source_data);
    const T* filter = static_cast<const T*>(filter_data);
    const Result<T> result(result_data, problem);
    T* packed = static_cast<T*>(workspace);
    Work work;
    const int64_t parts = plan->packed ? plan->problem.groups * plan->met_taps() : 0,
                  each = parts_of_packing_task(plan->problem.group_in() * plan->problem.group_out()),
                  packing = divide_up(parts, each), clearing = clearing_tasks(*plan);
    if (packing + clearing > 0)
      work.stages.push_back({packing + clearing, [=](int64_t task) {
                               if (task >= packing)
                                 return clear_results(*plan, task - packing, epilogue, result);
                               const int64_t last = std::min(parts, (task + 1) * each);
                               for (int64_t part = task * each; part < last; ++part)
                                 pack_part(*plan, part, filter, packed);
                             }});
    work.stages.push_back({plan->tasks(), [=](int64_t task) {
                             run_dot_task<T>(*plan, task, source, plan->packed ? packed : filter, epilogue,
                                             result);
                           }});
    return work;
  });
}

}  // namespace

Work dot_fprop(const ConvProblem& problem, Isa isa, const void* x, const void* w, Epilogue epilogue, void* y,
               void* workspace) {
  return dot_activation(problem, Major::kMN, isa, x, w, epilogue, y, workspace);
}

Work dot_dgrad(const ConvProblem& problem, Isa isa, const void* dy, const void* w, void* dx) {
  return dot_activation(problem.transpose(), Major::kK, isa, dy, w, {}, dx, nullptr);
}

}  // namespace convgrad::cpu
