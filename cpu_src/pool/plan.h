// Splits pooling's results into runs and tasks: a pure function of the problem and the instruction set.
//
// A row is all results along the innermost axis. Its pieces are the same in every row: runs of results that
// meet the same taps (regions.h), cut so that a piece's results stay in the first-level cache while the
// results between them, which belong to another phase of the stride, are written. The gradient is planned
// over the transposed axes, with taps in the window's order.
#pragma once

#include <cstdint>
#include <vector>

#include "common_src/problem.h"
#include "cpu_src/microkernels/pool_run.h"
#include "cpu_src/regions.h"

namespace convgrad::cpu {

// A run of units along the innermost axis; a unit is one result, or a LaneMap's unit.
struct PoolPiece {
  int64_t result_first, result_step, count;
  int64_t source_first, source_step;  // of the first tap
  int64_t taps, tap_step;
  bool grouped;
  int64_t divisor;  // along this axis, of the results or of every output that they meet; 0 if they differ
};

class PoolPlan {
 public:
  PoolPlan(const PoolProblem&, bool gradient, int vector_lanes);

  int64_t tasks() const { return tasks_; }
  bool gradient() const { return gradient_; }
  const PoolProblem& problem() const { return problem_; }
  // Returns, for each output along one axis, its factor of the average's divisor, which is a product over
  // axes.
  const std::vector<int64_t>& divisors(int axis) const { return divisors_[axis]; }

  struct Row {
    int64_t image;
    int64_t source_position, result_position;  // flat, of the innermost axis's position 0
    int64_t first[2], tap_step[2];             // source positions along the outer axes
    int64_t divisor;  // along the outer axes, of the row or of every output that it meets; 0 if they differ
    PoolRun run;
  };
  // Calls visit(row, piece) for the task's runs. The run is in the row, except for the ends of what it reads.
  template <typename Visit>
  void for_each_run(int64_t task, const Visit& visit) const {
    const int64_t pieces = static_cast<int64_t>(pieces_.size()), all = rows_ * pieces;
    const int64_t last = all * (task + 1) / tasks_;
    Row row;
    for (int64_t at = all * task / tasks_, known = -1; at < last; ++at) {
      if (at / pieces != known) row = row_at(known = at / pieces);
      const PoolPiece& piece = pieces_[at % pieces];
      set_piece(row, piece);
      visit(row, piece);
    }
  }

 private:
  Row row_at(int64_t index) const;
  void set_piece(Row&, const PoolPiece&) const;
  void list_pieces(int vector_lanes);
  void group_forward(int vector_lanes);
  // Finds the units [first, last) of whole strides for which every tap is on the source.
  void group_gradient(int vector_lanes, int64_t& first, int64_t& last);
  void add_region(const Region&, int64_t piece_results, int64_t src, int64_t dst);
  void add_piece(const PoolPiece&, int64_t unit_results, int64_t piece_results);

  PoolProblem problem_;
  bool gradient_;
  Axis axis_[kAxes];  // from the result's side
  std::vector<Region> regions_[2];
  std::vector<int32_t> region_of_[2];  // of every result position
  std::vector<int64_t> divisors_[kAxes];
  std::vector<PoolPiece> pieces_;
  LaneMap lanes_;
  int64_t rows_, tasks_;
};

}  // namespace convgrad::cpu
