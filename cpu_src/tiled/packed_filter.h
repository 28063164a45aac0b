// Packs the filter as tiles read it: panel by panel, with the channels of a panel contiguous in whole
// vectors.
//
// A row is one term of the sums: a tap (of axis 0, axis 1, axis 2, each in packed order) and a source
// channel. dgrad's panels hold input channels and its rows run over output channels, with the taps flipped:
// the filter transposed.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "common_src/integers.h"
#include "common_src/major.h"
#include "common_src/number.h"
#include "cpu_src/tiled/activation_plan.h"

namespace convgrad::cpu {

// A part is the rows of one group, one tap and at most so many source channels.
inline constexpr int64_t kPackedSources = 64;

// With merged phases: so many classes of taps in one place along the innermost axis.
inline constexpr int64_t kPackedClasses = 256;

inline int64_t merged_classes(const ActivationPlan& plan) {
  return static_cast<int64_t>(plan.merged_taps.size());
}

inline int64_t packed_parts(const ActivationPlan& plan) {
  if (plan.merges) {
    const int64_t parts = divide_up(merged_classes(plan), kPackedClasses);
    return plan.met[0].count() * plan.met[1].count() * plan.packed_taps2() * parts;
  }
  if (plan.pairs_over_taps) return plan.met[0].count() * plan.met[1].count();
  const int64_t parts = divide_up(plan.problem.group_in(), kPackedSources);
  return plan.problem.groups * plan.met_taps() * parts;
}

// Returns how many parts a task packs: many small ones, because starting a task takes as long as packing a
// hundred numbers.
inline int64_t parts_of_packing_task(int64_t numbers_of_part) {
  constexpr int64_t kNumbers = 1 << 13;
  return std::max<int64_t>(kNumbers / std::max<int64_t>(numbers_of_part, 1), 1);
}
inline int64_t parts_of_packing_task(const ActivationPlan& plan) {
  const ConvProblem& p = plan.problem;
  if (plan.pairs_over_taps) return parts_of_packing_task(p.axis[2].taps * p.in_channels * p.out_channels);
  return parts_of_packing_task(plan.merges ? std::min(kPackedClasses, merged_classes(plan)) * p.in_channels *
                                                 p.out_channels
                                           : std::min(kPackedSources, p.group_in()) * p.group_out());
}

inline int64_t packing_tasks(const ActivationPlan& plan) {
  const int64_t each = parts_of_packing_task(plan);
  return divide_up(packed_parts(plan), each);
}

// Packs rows of all phases' channels: a part is a place of taps and some of the classes.
template <typename T>
void pack_merged(const ActivationPlan& plan, int64_t part, const T* filter, Sum<T>* packed) {
  const ConvProblem& p = plan.problem;
  const int64_t sources = p.in_channels, results = p.out_channels, taps2 = p.axis[2].taps;
  const int64_t parts = divide_up(merged_classes(plan), kPackedClasses), at = part / parts;
  const int64_t first = part % parts * kPackedClasses,
                last = std::min(merged_classes(plan), first + kPackedClasses);
  const int64_t t2 = at % plan.packed_taps2(), outer = at / plan.packed_taps2();
  const int64_t r0 = plan.met[0].first + outer / plan.met[1].count(),
                r1 = plan.met[1].first + outer % plan.met[1].count();
  const int64_t tap01 = packed_place(p.axis[0], r0) * p.axis[1].taps + packed_place(p.axis[1], r1);
  const int64_t place = tap01 * plan.packed_taps2() + t2;
  const int64_t width = plan.merged_width(), step = ResultPhases(p.axis[2]).class_step();
  Sum<T>* const rows = packed + place * sources * width;
  const int64_t source_step = plan.filter_major == Major::kK ? 1 : results,
                result_step = plan.filter_major == Major::kK ? sources : 1;
  for (int64_t of_class = first; of_class < last; ++of_class) {
    const int64_t r2 = plan.merged_taps[of_class] + t2 * step;
    Sum<T>* dst = rows + of_class * results;
    if (r2 >= taps2) {
      for (int64_t c = 0; c < sources; ++c) std::fill_n(dst + c * width, results, Sum<T>{0});
      continue;
    }
    const T* src = filter + plan.filter_tap(tap01 * taps2, r2) * sources * results;
    for (int64_t k = 0; k < results; ++k) {
      for (int64_t c = 0; c < sources; ++c)
        dst[c * width + k] = widen(src[k * result_step + c * source_step]);
    }
  }
  if (last < merged_classes(plan)) return;
  // Writes what a panel's last vector reads beyond the classes.
  for (int64_t c = 0; c < sources; ++c)
    std::fill(rows + c * width + last * results, rows + (c + 1) * width, Sum<T>{0});
}

// What a part packs when phases are not merged: w[r,c,k] of some sources and all results of one group and
// tap. For fprop the source is c and the result k, for dgrad the reverse.
template <typename T>
struct PackedPart {
  int64_t group, packed_tap, first_source, last_source;
  const T* filter;  // of source 0 and result 0
  int64_t source_step, result_step;

  PackedPart(const ActivationPlan& plan, int64_t part, const T* all) {
    const ConvProblem& p = plan.problem;
    const int64_t sources = p.group_in(), results = p.group_out();
    const int64_t parts = divide_up(sources, kPackedSources);
    first_source = part % parts * kPackedSources;
    last_source = std::min(sources, first_source + kPackedSources);
    group = part / parts / plan.met_taps();
    packed_tap = plan.met_tap(part / parts % plan.met_taps());
    const int64_t tap = plan.filter_tap(packed_tap);
    const bool transposed = plan.filter_major == Major::kK;
    filter = all + (transposed ? tap * results * p.in_channels + group * sources
                               : tap * sources * p.out_channels + group * results);
    source_step = transposed ? 1 : p.out_channels;
    result_step = transposed ? p.in_channels : 1;
  }
};

template <typename T>
void pack_rows(const ActivationPlan& plan, const PackedPart<T>& part, Sum<T>* packed) {
  const int64_t sources = plan.problem.group_in(), results = plan.problem.group_out();
  for (int64_t first = 0; first < results; first += plan.panel_width()) {
    const int64_t channels = std::min(plan.panel_width(), results - first);
    const int panel_vectors = static_cast<int>(divide_up(channels, plan.lanes));
    const PanelRows rows = plan.panel_rows(part.group, first, panel_vectors);
    Sum<T>* dst = packed + rows.first + part.packed_tap * sources * rows.step;
    // Blocks of sources use up a transposed filter's lines while they are in the cache.
    constexpr int64_t kBlock = 16;
    for (int64_t block = part.first_source; block < part.last_source; block += kBlock) {
      const int64_t end = std::min(part.last_source, block + kBlock);
      for (int64_t k = 0; k < rows.step; ++k) {
        const T* from_k = part.filter + (first + k) * part.result_step;
        for (int64_t c = block; c < end; ++c)
          dst[c * rows.step + k] = k < channels ? widen(from_k[c * part.source_step]) : Sum<T>{0};
      }
    }
  }
}

template <typename T>
void pack_filter(const ActivationPlan& plan, int64_t task, const T* filter, Sum<T>* packed) {
  const int64_t each = parts_of_packing_task(plan), last = std::min(packed_parts(plan), (task + 1) * each);
  for (int64_t part = task * each; part < last; ++part) {
    if (plan.merges)
      pack_merged(plan, part, filter, packed);
    else
      pack_rows(plan, PackedPart<T>(plan, part, filter), packed);
  }
}

}  // namespace convgrad::cpu
