// The filter as tiles read it: panel by panel, the channels of a panel next to each other in whole vectors.
//
// A row is one term of the sums: tap (of axis 0, axis 1, axis 2, each in packed order) and source channel.
// dgrad's panels hold input channels and its rows run over output channels, with the taps flipped: the filter
// transposed.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "cpu_src/activation_plan.h"
#include "ffi_src/number.h"

namespace convgrad::cpu {

// A task packs the rows of one group, one tap and so many source channels.
inline constexpr int64_t kPackedSources = 64;

inline int64_t packing_tasks(const ActivationPlan& plan) {
  const int64_t parts = (plan.problem.group_in() + kPackedSources - 1) / kPackedSources;
  return plan.problem.groups * plan.problem.taps() * parts;
}

template <typename T>
void pack_filter(const ActivationPlan& plan, int64_t task, const T* filter, Sum<T>* packed) {
  const ConvProblem& p = plan.problem;
  const int64_t sources = p.group_in(), results = p.group_out();
  const int64_t parts = (sources + kPackedSources - 1) / kPackedSources;
  const int64_t first_source = task % parts * kPackedSources;
  const int64_t last_source = std::min(sources, first_source + kPackedSources);
  const int64_t group = task / parts / p.taps(), packed_tap = task / parts % p.taps();
  const int64_t tap = plan.filter_tap(packed_tap);
  // w[r,c,k]: fprop's source is c and its result k; dgrad's the other way round.
  const T* from = plan.transposed ? filter + tap * results * p.in_channels + group * sources
                                  : filter + tap * sources * p.out_channels + group * results;
  const int64_t source_step = plan.transposed ? 1 : p.out_channels;
  const int64_t result_step = plan.transposed ? p.in_channels : 1;
  for (int64_t first = 0; first < results; first += plan.panel_width()) {
    const int64_t channels = std::min(plan.panel_width(), results - first);
    const int panel_vectors = static_cast<int>((channels + plan.lanes - 1) / plan.lanes);
    const PanelRows rows = plan.panel_rows(group, first, panel_vectors);
    Sum<T>* to = packed + rows.first + packed_tap * sources * rows.step;
    // Blocks of sources, so that a transposed filter's lines are used up while they are in the cache.
    constexpr int64_t kBlock = 16;
    for (int64_t block = first_source; block < last_source; block += kBlock) {
      const int64_t end = std::min(last_source, block + kBlock);
      for (int64_t k = 0; k < rows.step; ++k) {
        const T* from_k = from + (first + k) * result_step;
        for (int64_t c = block; c < end; ++c)
          to[c * rows.step + k] = k < channels ? widen(from_k[c * source_step]) : Sum<T>{0};
      }
    }
  }
}

}  // namespace convgrad::cpu
