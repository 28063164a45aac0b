// Where a convolution's results see the same filter taps: along one axis, runs of results whose taps on
// the source are the same ones, so that kernels over a run have no border and no zero to multiply.
//
// A region is a part of a phase (common_src/phase.h): some of its results, and those of its taps that these
// meet on the source. fprop has input_dilation phases (mostly one); dgrad is fprop over the transposed axis,
// so a strided dgrad has one phase a stride and never meets a zero between the strides.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "common_src/phase.h"
#include "common_src/problem.h"

namespace convgrad::cpu {

// Results o = result_first + result_step * j, j in [0, count); taps t in [0, taps), numbered in packed order
// (below) from tap_first; both lead to the source position
// source_first + source_step * j + tap_source_step * t.
struct Region {
  int64_t result_first, result_step, count;
  int64_t source_first, source_step;
  int64_t tap_first, taps, tap_source_step;
  // Of so many phases, results side by side: all the same, but that each has a class of taps of its own,
  // which are the first_class-th in the order of phases and those that follow.
  int64_t phases = 1, first_class = 0;
};

// What the regions would be if the source had no ends: result o is the one of phase o % result_step and
// j = o / result_step. Source positions may lie outside.
class ResultPhases : public PhaseSteps {
 public:
  using PhaseSteps::PhaseSteps;

  // Those with an output.
  int64_t count() const { return std::min(o_step(), axis_.output); }
  Region operator[](int64_t phase) const;
  // Of the phase that meets the most of them, were there an output for it; one at least.
  int64_t most_met_taps() const;

  // The phases that meet any tap, as few regions as may be where those side by side are one; in the order of
  // their results. Tap classes count in this order, taps of each from 0 on.
  std::vector<Region> tied() const;
  // The first tap of each class in that order.
  std::vector<int64_t> first_taps() const;
  // Classes of taps, tied or not, and taps of the largest.
  int64_t classes() const { return std::min(class_step(), axis_.taps); }
  int64_t class_taps() const;
  int64_t class_step() const { return r_step(); }  // from a class' tap to the next

 private:
  template <typename Visit>
  void for_each_run(const Visit& visit) const;
};

// Every result position of the axis lies in exactly one region; a region may have no taps.
std::vector<Region> regions(const Axis& axis);

// Those of some phases.
void add_regions(const Axis& axis, const Region& phase, std::vector<Region>& found);

// The region of one result alone: a phase's, with those of its taps that are on the source.
Region region_of_one(const Axis& axis, const Region& phase, int64_t j);

// The packed order of an axis' taps, in which those of one phase are neighbours: packed position -> tap r.
std::vector<int64_t> packed_taps(const Axis& axis);

// Taps [first, last) of an axis that may tie outputs [begin, end).
struct TapBounds {
  int64_t first, last;
  int64_t count() const { return last - first; }
  bool hold(int64_t tap) const { return first <= tap && tap < last; }
};
TapBounds tap_bounds(const Axis& axis, int64_t begin, int64_t end);

// Where tap r is in packed order.
int64_t packed_place(const Axis& axis, int64_t r);

}  // namespace convgrad::cpu
