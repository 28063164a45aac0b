// Splits the results along an axis into regions whose taps on the source are the same, so that kernels over a
// region have no border and no zero to multiply.
//
// A region is a part of a phase (common_src/phase.h): some of its results, and those of its taps that these
// meet on the source. fprop has input_dilation phases (mostly one); dgrad is fprop over the transposed axis,
// so a strided dgrad has `stride` phases and never meets a zero between the strides.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "common_src/phase.h"
#include "common_src/problem.h"

namespace convgrad::cpu {

// Results o = result_first + result_step * j, j in [0, count), and taps t in [0, taps), numbered in packed
// order (below) from tap_first. Both lead to the source position
//
//     source_first + source_step * j + tap_source_step * t
struct Region {
  int64_t result_first, result_step, count;
  int64_t source_first, source_step;
  int64_t tap_first, taps, tap_source_step;
  // The number of phases, with results side by side, that this region stands for. They differ only in their
  // class of taps: those from first_class on, in the order of phases.
  int64_t phases = 1, first_class = 0;
};

// The regions that a source without ends would have: result o belongs to phase o % result_step and is its
// number j = o / result_step. Source positions may lie outside.
class ResultPhases : public PhaseSteps {
 public:
  using PhaseSteps::PhaseSteps;

  // Returns the number of phases that have an output.
  int64_t count() const { return std::min(o_step(), axis_.output); }
  Region operator[](int64_t phase) const;
  // Returns the most taps that a phase would meet if it had an output; at least one.
  int64_t most_met_taps() const;

  // Returns the phases that meet any tap, in the order of their results, with neighbouring phases merged into
  // one region where possible. Classes of taps are numbered in this order; the taps of each class from 0.
  std::vector<Region> tied() const;
  // Returns the first tap of each class, in the same order.
  std::vector<int64_t> first_taps() const;
  // Return the number of classes of taps, tied or not, and the taps of the largest class.
  int64_t classes() const { return std::min(class_step(), axis_.taps); }
  int64_t class_taps() const;
  int64_t class_step() const { return r_step(); }  // from a class's tap to the next

 private:
  template <typename Visit>
  void for_each_run(const Visit& visit) const;
};

// Returns regions that cover every result of the axis exactly once; a region may have no taps.
std::vector<Region> regions(const Axis& axis);

// Appends the regions of one phase to `found`.
void add_regions(const Axis& axis, const Region& phase, std::vector<Region>& found);

// Returns the region of result j of a phase alone, with those of the phase's taps that are on the source.
Region region_of_one(const Axis& axis, const Region& phase, int64_t j);

// Returns an axis's taps in packed order, in which those of one phase are neighbours: packed position -> tap
// r.
std::vector<int64_t> packed_taps(const Axis& axis);

// The taps [first, last) of an axis that may tie outputs [begin, end).
struct TapBounds {
  int64_t first, last;
  int64_t count() const { return last - first; }
  bool hold(int64_t tap) const { return first <= tap && tap < last; }
};
TapBounds tap_bounds(const Axis& axis, int64_t begin, int64_t end);

// Returns the packed position of tap r.
int64_t packed_place(const Axis& axis, int64_t r);

}  // namespace convgrad::cpu
