// The inner loops of small-group convolutions, lane by lane: the sources of each lane are in place already
// (spread.h), so nothing but multiply-adds of whole vectors is left.
#pragma once

#include <cstdint>

#include "cpu_src/isa.h"

namespace convgrad::cpu {

inline constexpr int kMaxGroupedPixels = 28, kMaxGroupedSums = 14, kMaxGroupedRows = 3;

// One row of filter taps: the source row that it meets, and the vector of its first term.
template <typename S>
struct TapRow {
  const S* source;
  const S* filter;
};

// result[m * result_step] = sum over rows, j of source[source_at + source_offset[j] + m * lanes] *
// filter[filter_at + j * filter_step], one vector for each pixel m; with `add` on top of what is there. All
// in elements.
template <typename S>
using GroupedTile = void (*)(const TapRow<S>* rows, int64_t row_count, int64_t source_at, int64_t filter_at,
                             const int64_t* source_offset, int64_t terms, int64_t filter_step, S* result,
                             int64_t result_step, bool add);

// sum[row][j * sum_step] += sum over m of source[row][j * term_step + m * source_step] * dy[m * dy_step],
// vectors all.
template <typename S>
using GroupedSums = void (*)(const S* const* source, S* const* sum, int64_t sum_step, int64_t source_step,
                             int64_t term_step, const S* dy, int64_t dy_step, int64_t pixels);

template <typename S>
struct GroupedTiles {
  int lanes;
  int most_pixels;
  GroupedTile<S> tile[kMaxGroupedPixels + 1];  // by pixels
  // By rows and terms, of which there are kMaxGroupedSums together; the dense ones where term_step is the
  // lanes.
  GroupedSums<S> sums[kMaxGroupedRows + 1][kMaxGroupedSums + 1];
  GroupedSums<S> dense_sums[kMaxGroupedRows + 1][kMaxGroupedSums + 1];
};

CONVGRAD_PER_ISA(template <typename S> const GroupedTiles<S>& grouped_tiles())

}  // namespace convgrad::cpu
