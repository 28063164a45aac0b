// Packs the filter as packed_filter.h does, but with pairs of source channels (bf16_dots.h) in place of
// widened numbers: half as many rows, of as many bytes each.
#pragma once

#include <algorithm>
#include <cstdint>

#include "common_src/integers.h"
#include "cpu_src/bf16_dots.h"
#include "cpu_src/microkernels/avx512_bf16/pair_rows.h"
#include "cpu_src/tiled/packed_filter.h"

namespace convgrad::cpu {

inline void pack_part_of_pairs(const ActivationPlan& plan, const PackedPart<BFloat16>& part,
                               BFloat16Pair* packed) {
  static_assert(kPackedSources % 2 == 0);  // no pair is in two parts
  const int64_t results = plan.problem.group_out();
  for (int64_t first = 0; first < results; first += plan.panel_width()) {
    const int64_t channels = std::min(plan.panel_width(), results - first);
    const int panel_vectors = static_cast<int>(divide_up(channels, plan.lanes));
    const PanelRows rows = plan.panel_rows(part.group, first, panel_vectors);
    BFloat16Pair* const dst = packed + rows.first + plan.first_term(part.packed_tap) * rows.step;
    const BFloat16* const src = part.filter + first * part.result_step;
    if (part.result_step == 1) {
      for (int64_t c = part.first_source; c < part.last_source; c += 2) {
        const BFloat16* const row = src + c * part.source_step;
        BFloat16Pair* const to = dst + c / 2 * rows.step;
        avx512_bf16::zip_rows(row, c + 1 < part.last_source ? row + part.source_step : nullptr, 0, to, 0, 1,
                              channels);
        std::fill(to + channels, to + rows.step, BFloat16Pair{});
      }
      continue;
    }
    // Blocks of sources use up a transposed filter's lines while they are in the cache.
    constexpr int64_t kBlock = 32;
    for (int64_t block = part.first_source; block < part.last_source; block += kBlock) {
      const int64_t end = std::min(part.last_source, block + kBlock), whole = end - end % 2;
      for (int64_t k = 0; k < channels; ++k) {
        const BFloat16* const from_k = src + k * part.result_step;
        for (int64_t c = block; c < whole; c += 2) dst[c / 2 * rows.step + k] = {from_k[c], from_k[c + 1]};
        if (whole < end) dst[whole / 2 * rows.step + k] = {from_k[whole], BFloat16{0}};
      }
      for (int64_t c = block; c < end; c += 2)
        std::fill(dst + c / 2 * rows.step + channels, dst + (c / 2 + 1) * rows.step, BFloat16Pair{});
    }
  }
}

// Packs pairs over taps: a part is a row of taps.
inline void pack_row_of_pairs(const ActivationPlan& plan, int64_t part, const BFloat16* filter,
                              BFloat16Pair* packed) {
  const ConvProblem& p = plan.problem;
  const int64_t sources = p.in_channels, results = p.out_channels, numbers = p.axis[2].taps * sources;
  const int64_t r0 = plan.met[0].first + part / plan.met[1].count(),
                r1 = plan.met[1].first + part % plan.met[1].count();
  const int64_t row = packed_place(p.axis[0], r0) * p.axis[1].taps + packed_place(p.axis[1], r1);
  const bool transposed = plan.filter_major == Major::kK;
  const int64_t result_step = transposed ? sources : 1;
  // Returns the place of a number of the row, for result 0.
  const auto at = [&](int64_t number) {
    const int64_t tap = plan.filter_tap(row * p.axis[2].taps + number / sources), c = number % sources;
    return filter + tap * sources * results + c * (transposed ? 1 : results);
  };
  for (int64_t first = 0; first < results; first += plan.panel_width()) {
    const int64_t channels = std::min(plan.panel_width(), results - first);
    const PanelRows rows = plan.panel_rows(0, first, static_cast<int>(divide_up(channels, plan.lanes)));
    BFloat16Pair* dst = packed + rows.first + row * plan.terms_of_row() * rows.step;
    for (int64_t number = 0; number < numbers; number += 2, dst += rows.step) {
      const BFloat16* const one = at(number) + first * result_step;
      const BFloat16* const next = number + 1 < numbers ? at(number + 1) + first * result_step : nullptr;
      for (int64_t k = 0; k < channels; ++k)
        dst[k] = {one[k * result_step], next == nullptr ? BFloat16{0} : next[k * result_step]};
      std::fill(dst + channels, dst + rows.step, BFloat16Pair{});
    }
  }
}

inline void pack_pairs(const ActivationPlan& plan, int64_t task, const BFloat16* filter,
                       BFloat16Pair* packed) {
  const int64_t each = parts_of_packing_task(plan), last = std::min(packed_parts(plan), (task + 1) * each);
  for (int64_t part = task * each; part < last; ++part) {
    if (plan.pairs_over_taps)
      pack_row_of_pairs(plan, part, filter, packed);
    else
      pack_part_of_pairs(plan, PackedPart<BFloat16>(plan, part, filter), packed);
  }
}

}  // namespace convgrad::cpu
