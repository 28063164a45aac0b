// Computes y[n,o,k] = sum over r, c of x[n,i,c] * w[r,c,k] tile by tile in registers; dgrad is the same over
// the transposed problem.
//
// Results are cut into boxes, the products of one region per axis (regions.h). Within a box every result
// meets the same taps, so a tile needs no border and no test, and its pixels, which lie along one axis of the
// box (or the batch), are a fixed step apart in source and result. Sums longer than a run are kept between
// runs in the result, or in a buffer if the result has a narrower type or holds only part of a vector.
#include <algorithm>
#include <memory>
#include <vector>

#include "common_src/dispatch.h"
#include "common_src/integers.h"
#include "common_src/major.h"
#include "cpu_src/cleared_results.h"
#include "cpu_src/kernels.h"
#include "cpu_src/microkernels/activation_tile.h"
#include "cpu_src/microkernels/avx512_bf16/pair_rows.h"
#include "cpu_src/microkernels/rows.h"
#include "cpu_src/read_ahead.h"
#include "cpu_src/result.h"
#include "cpu_src/tiled/activation_plan.h"
#include "cpu_src/tiled/packed_filter.h"
#include "cpu_src/tiled/packed_pairs.h"
#include "cpu_src/tiled/terms.h"

namespace convgrad::cpu {
namespace {

constexpr int64_t kTiledRun = 512;  // terms that are added one by one

// The buffers that one thread needs for a tile besides registers. X is what the tiles multiply: numbers in
// the type of the sums, or pairs.
template <typename T, typename X>
class TileRunner {
 public:
  using S = Sum<T>;

  TileRunner(const ActivationPlan& plan, const Epilogue& epilogue)
      : plan_(plan),
        epilogue_(epilogue),
        tiles_(activation_tiles_of<X>(plan.isa)),
        rows_(row_conversions_of<T>(plan.isa)),
        copies_(row_conversions_of<S>(plan.isa)),
        results_(plan.problem.batch * plan.problem.outputs() * plan.problem.out_channels),
        sums_(kMaxTilePixels * kMaxTileVectors * tiles_.lanes) {}

  // Computes the tile's pixels from `source` and `result` on, for the channels of one panel from
  // `first_channel` on.
  void run(const Terms& terms, const Box& box, const T* source, const X* filter, int64_t filter_step,
           Result<T> result, int64_t pixels, int vectors, int64_t first_channel, int64_t channels) {
    const ActivationTile<X> tile = tiles_.tile[vectors][pixels];
    const int64_t width = vectors * tiles_.lanes, result_step = box.result_step[box.along];
    const bool in_place = result.sums() != nullptr && channels == width;
    // Sums of one run are rounded before they leave the registers, if nothing is added to them.
    const bool rounded =
        kPairs && result.sums() == nullptr && channels == width && terms.runs.size() == 2 && !epilogue_.any();
    S* sums = in_place ? result.sums() : rounded ? static_cast<S*>(result.data()) : sums_.data();
    const int64_t sums_step = in_place || rounded ? result_step : width;
    for (size_t run = 0; run + 1 < terms.runs.size(); ++run) {
      const Segment* segments = terms.segments.data() + terms.runs[run];
      const int64_t count = terms.runs[run + 1] - terms.runs[run];
      const X* src;
      int64_t source_step = box.source_step[box.along];
      if constexpr (std::is_same_v<T, X>) {
        src = source;
      } else if (kPairs && plan_.reads_pairs_in_place()) {
        src = reinterpret_cast<const X*>(source);
        source_step /= plan_.numbers_of_term();
      } else {
        segments = copy_sources(terms, run, source, source_step, pixels);
        src = copied_.data();
        source_step = terms.longest;
      }
      tile(src, filter, segments, count, source_step, filter_step, sums, sums_step,
           rounded                                           ? Into::kRounded
           : run > 0                                         ? Into::kAdd
           : in_place && streams(result, result_step, terms) ? Into::kStream
                                                             : Into::kSet);
    }
    if (epilogue_.any()) {
      // Each of several merged phases has all channels.
      const int64_t phases = box.region[2]->phases, each = channels / phases;
      for (int64_t phase = 0; phase < phases; ++phase)
        rows_.finish(epilogue_, first_channel, sums + phase * each, sums_step, pixels, each);
    }
    if (!in_place && !rounded) result.store(rows_, copies_, sums, sums_step, result_step, pixels, channels);
  }

 private:
  static constexpr bool kPairs = std::is_same_v<X, BFloat16Pair>;

  // Results of a single run that exceed the caches would evict what is read again, so they bypass the caches;
  // not with an epilogue, which is about to read them.
  bool streams(const Result<T>& result, int64_t result_step, const Terms& terms) const {
    constexpr int64_t kBeyondCache = 24 << 20;
    const int64_t vector = tiles_.lanes * static_cast<int64_t>(sizeof(S));
    return !epilogue_.any() && terms.runs.size() == 2 && results_ * result.number_bytes() > kBeyondCache &&
           reinterpret_cast<uintptr_t>(result.data()) % vector == 0 &&
           result_step * result.number_bytes() % vector == 0;
  }

  // Copies a run's sources, widened to the type of the sums or in whole pairs; the segments move along.
  const Segment* copy_sources(const Terms& terms, size_t run, const T* source, int64_t source_step,
                              int64_t pixels) {
    copied_.resize(kMaxTilePixels * terms.longest);
    moved_.assign(terms.segments.data() + terms.runs[run], terms.segments.data() + terms.runs[run + 1]);
    const Terms::Copy* copy = terms.copies.data() + terms.runs[run];
    int64_t at = 0;
    for (Segment& segment : moved_) {
      if constexpr (kPairs) {
        avx512_bf16::copy_pairs(source + segment.source, source_step, copied_.data() + at, terms.longest,
                                pixels, copy->numbers, copy->first_is_zero);
        ++copy;
      } else {
        rows_.widen(source + segment.source, source_step, copied_.data() + at, terms.longest, pixels,
                    segment.length);
      }
      segment.source = at;
      at += segment.length;
    }
    return moved_.data();
  }

  const ActivationPlan& plan_;
  const Epilogue epilogue_;
  const ActivationTiles<X>& tiles_;
  const RowConversions<T>& rows_;
  const RowConversions<S>& copies_;
  const int64_t results_;
  std::vector<S> sums_;
  std::vector<X> copied_;
  std::vector<Segment> moved_;
};

template <typename T, typename X>
void run_tiled_task(const ActivationPlan& plan, int64_t task, const T* source, const X* filter,
                    const Epilogue& epilogue, Result<T> result) {
  const ConvProblem& p = plan.problem;
  const ActivationTask range = plan.task(task);
  TileRunner<T, X> runner(plan, epilogue);
  Terms terms;
  for (int64_t at = range.first_tile; at < range.last_tile;) {
    const Box box = plan.box_of(at);
    const int64_t last = std::min(range.last_tile, box.first_tile + box.tiles);
    // If no earlier tile has read the sources and they exceed the caches, prefetch those of the next tile.
    // Pairs are multiplied faster than any but a core's own cache delivers them, or takes results.
    const int64_t cache = plan.pairs ? 1 << 20 : 16 << 20;
    const bool reads_once = p.taps() == 1 &&
                            box.region[0]->taps * box.region[1]->taps * box.region[2]->taps == 1 &&
                            p.batch * p.inputs() * p.in_channels * static_cast<int64_t>(sizeof(T)) > cache;
    const bool writes_far =
        plan.pairs && p.batch * p.outputs() * p.out_channels * result.number_bytes() > cache;
    for (int64_t panel = range.first_panel; panel < range.last_panel; ++panel) {
      const int64_t group = panel / plan.panels, in_group = panel % plan.panels * plan.panel_width();
      const int64_t channels =
          plan.merges ? plan.box_channels(box) : std::min(plan.panel_width(), p.group_out() - in_group);
      const int vectors = static_cast<int>(divide_up(channels, plan.lanes));
      const PanelRows rows = plan.merges ? plan.merged_panel(box) : plan.panel_rows(group, in_group, vectors);
      const bool joined = p.groups == 1 && box.region[2]->tap_source_step == 1 &&
                          (plan.pairs_over_taps || p.group_in() % plan.numbers_of_term() == 0);
      list_terms(
          plan, box, joined, kTiledRun, terms, [&](int64_t tap) { return plan.first_term(tap) * rows.step; },
          rows.step);
      TilePlace place = box.place(at);
      for (int64_t tile = at; tile < last; ++tile) {
        const int64_t first_channel = group * p.group_out() + in_group;
        const TilePlace next = tile + 1 < last ? box.place(tile + 1) : TilePlace{0, 0, 0};
        if (reads_once && panel == range.first_panel) {
          prefetch_pixels<false>(source + next.source, box.source_step[box.along] * sizeof(T),
                                 p.in_channels * sizeof(T), 0, next.pixels);
        }
        if (writes_far) {
          prefetch_pixels<true>((result + next.result + first_channel).data(),
                                box.result_step[box.along] * result.number_bytes(),
                                channels * result.number_bytes(), 0, next.pixels);
        }
        runner.run(terms, box, source + place.source + group * p.group_in(), filter + rows.first, rows.step,
                   result + place.result + first_channel, place.pixels, vectors, first_channel, channels);
        place = next;
      }
    }
    at = last;
  }
}

// Adds the stages that pack the filter as X (if the plan packs it) and compute the tiles.
template <typename T, typename X, typename Pack>
Work tiled_work(std::shared_ptr<const ActivationPlan> plan, const T* source, const X* filter, Pack pack,
                Epilogue epilogue, Result<T> result) {
  Work work;
  const int64_t packing = plan->packed ? packing_tasks(*plan) : 0, clearing = clearing_tasks(*plan);
  if (packing + clearing > 0)
    work.stages.push_back({packing + clearing, [=](int64_t task) {
                             if (task < packing) return pack(*plan, task);
                             clear_results(*plan, task - packing, epilogue, result);
                           }});
  work.stages.push_back({plan->tasks(), [=](int64_t task) {
                           run_tiled_task<T, X>(*plan, task, source, filter, epilogue, result);
                         }});
  return work;
}

Work tiled_activation(const ConvProblem& problem, Major filter_major, Isa isa, const void* source_data,
                      const void* filter_data, Epilogue epilogue, void* result_data, void* workspace) {
  return dispatch(problem.dtype, [&](auto stored) {
    using T = typename decltype(stored)::type;
    using S = Sum<T>;
    const auto plan = std::make_shared<const ActivationPlan>(problem, filter_major, LanesAre::kResults, isa);
    const T* source = static_cast<const T*>(source_data);
    const T* filter = static_cast<const T*>(filter_data);
    const Result<T> result(result_data, problem);
    if constexpr (kHasBf16Dots && std::is_same_v<T, BFloat16>) {
      BFloat16Pair* packed = static_cast<BFloat16Pair*>(workspace);
      const auto pack = [=](const ActivationPlan& plan, int64_t task) {
        pack_pairs(plan, task, filter, packed);
      };
      if (plan->pairs) return tiled_work<T, BFloat16Pair>(plan, source, packed, pack, epilogue, result);
    }
    S* packed = static_cast<S*>(workspace);
    const S* read = packed;
    if constexpr (std::is_same_v<T, S>) {
      if (!plan->packed) read = filter;
    }
    const auto pack = [=](const ActivationPlan& plan, int64_t task) {
      pack_filter(plan, task, filter, packed);
    };
    return tiled_work<T, S>(plan, source, read, pack, epilogue, result);
  });
}

}  // namespace

Work tiled_fprop(const ConvProblem& problem, Isa isa, const void* x, const void* w, Epilogue epilogue,
                 void* y, void* workspace) {
  return tiled_activation(problem, Major::kMN, isa, x, w, epilogue, y, workspace);
}

Work tiled_dgrad(const ConvProblem& problem, Isa isa, const void* dy, const void* w, void* dx,
                 void* workspace) {
  return tiled_activation(problem.transpose(), Major::kK, isa, dy, w, {}, dx, workspace);
}

}  // namespace convgrad::cpu
