// The inner loops of small-group convolutions, lane by lane. The sources of each lane are already in place
// (spread.h), so only multiply-adds of whole vectors remain.
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

// Computes result[m * result_step] = sum over rows, j of source[source_at + source_offset[j] + m * lanes] *
// filter[filter_at + j * filter_step], one vector per pixel m; with `add` it adds to what is there. Steps and
// offsets are in elements.
template <typename S>
using GroupedTile = void (*)(const TapRow<S>* rows, int64_t row_count, int64_t source_at, int64_t filter_at,
                             const int64_t* source_offset, int64_t terms, int64_t filter_step, S* result,
                             int64_t result_step, bool add);

// Computes sum[row][j * sum_step] += sum over m of source[row][j * term_step + m * source_step] * dy[m *
// dy_step], where all numbers are vectors.
template <typename S>
using GroupedSums = void (*)(const S* const* source, S* const* sum, int64_t sum_step, int64_t source_step,
                             int64_t term_step, const S* dy, int64_t dy_step, int64_t pixels);

template <typename S>
struct GroupedTiles {
  int lanes;
  int most_pixels;
  GroupedTile<S> tile[kMaxGroupedPixels + 1];  // by pixels
  // By rows and terms, whose product is at most kMaxGroupedSums. dense_sums are for a term_step equal to the
  // lanes.
  GroupedSums<S> sums[kMaxGroupedRows + 1][kMaxGroupedSums + 1];
  GroupedSums<S> dense_sums[kMaxGroupedRows + 1][kMaxGroupedSums + 1];
};

CONVGRAD_PER_ISA(template <typename S> const GroupedTiles<S>& grouped_tiles())

}  // namespace convgrad::cpu
