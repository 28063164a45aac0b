// Depthwise convolutions: one channel in and one out in every group. There is nothing to copy, pack or spread
// over lanes: neighbouring channels lie side by side in x, in the filter and in y.
//
// Along each axis results are split into regions with the same taps (regions.h). A row is the results of one
// position of the batch and the outer axes; in it a tile of pixels of one region meets all taps of the row.
#pragma once

#include <cstdint>
#include <vector>

#include "common_src/major.h"
#include "common_src/problem.h"
#include "cpu_src/isa.h"
#include "cpu_src/microkernels/depthwise_tile.h"
#include "cpu_src/regions.h"

namespace convgrad::cpu {

// Reports whether the kernel serves the problem.
bool depthwise_serves(const ConvProblem& problem);

// Reports whether it is expected to be faster than copying the sources as "grouped" does.
bool depthwise_pays(Op, const ConvProblem& problem);

// The rows of a problem (of the transposed problem for dgrad) and the taps that each of them meets.
class DepthwisePlan {
 public:
  DepthwisePlan(const ConvProblem& problem, Major filter_major, Isa isa);

  const ConvProblem problem;
  const Major filter_major;
  const Isa isa;

  int64_t rows() const { return problem.batch * problem.axis[0].output * problem.axis[1].output; }
  // Returns the first of `parts` nearly equal parts of the rows.
  int64_t first_row(int64_t part, int64_t parts) const { return rows() * part / parts; }
  int64_t tasks() const;
  // Returns the place in DepthwiseTiles::kWindow of a region's taps if they are neighbours as far apart as
  // its pixels, otherwise -1.
  static int window_of(const Region& region);
  // Parts of the rows whose sums wgrad keeps apart. The problem is that of x and dy.
  static int64_t wgrad_parts(const ConvProblem& problem);

  // A row's place and, for each region of axis 2, the taps of the row's results there, with sources from the
  // row's first.
  struct Row {
    int64_t source, result;
    int64_t class0, class1;  // regions of the outer axes, which decide the taps
  };
  Row row(int64_t index) const;
  const std::vector<Region>& across() const { return regions_[2]; }
  const std::vector<DepthwiseTap>& taps(const Row& row, int64_t region) const {
    return taps_[(row.class0 * static_cast<int64_t>(regions_[1].size()) + row.class1) *
                     static_cast<int64_t>(regions_[2].size()) +
                 region];
  }

 private:
  struct Position {
    int64_t region, source;  // number of the region; the source of the result's first tap
  };
  std::vector<DepthwiseTap> taps_of(const Region& r0, const Region& r1, const Region& r2) const;

  std::vector<Region> regions_[kAxes];
  std::vector<Position> positions_[2];  // of each result along the outer axes
  std::vector<int64_t> packed_[kAxes];  // packed position -> tap
  std::vector<std::vector<DepthwiseTap>> taps_;
};

int64_t depthwise_wgrad_bytes(const ConvProblem& problem);

}  // namespace convgrad::cpu
