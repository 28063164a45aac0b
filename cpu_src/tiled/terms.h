// Lists the terms of one box's sums in the order in which they are added.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "common_src/integers.h"
#include "cpu_src/microkernels/activation_tile.h"
#include "cpu_src/tiled/activation_plan.h"

namespace convgrad::cpu {

// Terms in runs: segments [runs[j], runs[j + 1]) are added before they join the rest.
struct Terms {
  std::vector<Segment> segments;
  std::vector<int64_t> runs;
  int64_t longest = 0;  // terms of the longest run

  // What a copy of a segment's sources holds: so many numbers, of which the first may be a zero (it belongs
  // to a tap that is not met). The last pair of an odd number is completed by zero.
  struct Copy {
    int64_t numbers;
    bool first_is_zero;
  };
  std::vector<Copy> copies;
};

// Lists runs of at most `most_products`. `filter_of` maps a tap, given as a packed position, to its start in
// the filter, where filter_step is the step from one term to the next. If `joined`, neighbouring taps of axis
// 2 are contiguous in both source and filter, and become one segment.
template <typename FilterOf>
void list_terms(const ActivationPlan& plan, const Box& box, bool joined, int64_t most_products, Terms& terms,
                const FilterOf& filter_of, int64_t filter_step) {
  const ConvProblem& p = plan.problem;
  const Region &r0 = *box.region[0], &r1 = *box.region[1], &r2 = *box.region[2];
  const int64_t C = p.in_channels, row = p.axis[2].input * C, plane = p.axis[1].input * row;
  // Numbers of the first pair that belong to the tap before.
  const int64_t before = plan.pairs_over_taps && r2.taps > 0 ? r2.tap_first * C % 2 : 0;
  const int64_t pieces = joined ? 1 : r2.taps, numbers = before + (joined ? r2.taps * C : p.group_in());
  const int64_t of_term = plan.numbers_of_term(), length = divide_up(numbers, of_term),
                most = most_products / of_term;
  const int64_t unit = plan.reads_pairs_in_place() ? of_term : 1;  // of source offsets
  terms.segments.clear();
  terms.copies.clear();
  terms.runs.assign(1, 0);
  terms.longest = 0;
  int64_t in_run = 0;
  const auto end_run = [&] {
    terms.longest = std::max(terms.longest, in_run);
    terms.runs.push_back(static_cast<int64_t>(terms.segments.size()));
    in_run = 0;
  };
  for (int64_t t0 = 0; t0 < r0.taps; ++t0) {
    for (int64_t t1 = 0; t1 < r1.taps; ++t1) {
      for (int64_t t2 = 0; t2 < pieces; ++t2) {
        const int64_t tap = ((r0.tap_first + t0) * p.axis[1].taps + r1.tap_first + t1) * plan.packed_taps2() +
                            r2.tap_first + t2;
        const int64_t filter = filter_of(tap);
        const int64_t source = -before + t0 * r0.tap_source_step * plane + t1 * r1.tap_source_step * row +
                               t2 * r2.tap_source_step * C;
        for (int64_t c = 0; c < length;) {
          const int64_t part = std::min(length - c, most);
          if (in_run + part > most) end_run();
          terms.segments.push_back({(source + c * of_term) / unit, filter + c * filter_step, part});
          terms.copies.push_back({std::min(part * of_term, numbers - c * of_term), c == 0 && before > 0});
          in_run += part;
          c += part;
        }
      }
    }
  }
  if (in_run > 0 || terms.runs.size() == 1) end_run();
}

}  // namespace convgrad::cpu
