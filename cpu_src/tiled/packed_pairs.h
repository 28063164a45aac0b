// Packs the filter as packed_filter.h does, but with pairs of source channels (bf16_dots.h) in place of widened
// numbers: half as many rows, of as many bytes each.
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
    BFloat16Pair* const dst = packed + rows.first + part.packed_tap * plan.terms_of_tap() * rows.step;
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

inline void pack_pairs(const ActivationPlan& plan, int64_t task, const BFloat16* filter,
                       BFloat16Pair* packed) {
  const int64_t each = parts_of_packing_task(plan), last = std::min(packed_parts(plan), (task + 1) * each);
  for (int64_t part = task * each; part < last; ++part)
    pack_part_of_pairs(plan, PackedPart<BFloat16>(plan, part, filter), packed);
}

}  // namespace convgrad::cpu
