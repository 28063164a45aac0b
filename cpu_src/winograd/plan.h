// Winograd's minimal filtering: a tile of 4 results of a filter of 3 taps takes 6 products instead of 12, and
// a tile of 4 x 4 results takes 36 instead of 144.
//
// A filter of taps w[0..2] over inputs x[0..5] has the results y[o] = sum over r of x[o + r] * w[r], o in
// 0..3. All three contractions are one trilinear form, sum over o, r of x[o + r] * w[r] * y[o]. Its sums over
// o and r are what the coefficients of a product of two polynomials are, w(z) * y(z), of degree 5: known from
// its values at 6 points, where the values of w and y are multiplied. With their values E3 w and E4 y, and C
// the matrix that turns values at points into coefficients, the form is
//
//     sum over points p of  (C^T x)[p] * (E3 w)[p] * (E4 y)[p]
//
// and every op leaves one argument open:
//
//     fprop, dgrad   y  = E4^T ((C^T x) * (E3 w))     F(4, 3): 4 results, 3 taps
//     wgrad          dw = E3^T ((C^T x) * (E4 dy))    F(3, 4): 3 results, 4 "taps"
//
// (dgrad is fprop of the transposed problem.) Along two axes each transform is done along one and then along
// the other. The products at one point, summed over channels or over tiles, are a matrix product.
//
// The points are 0, +-1/sqrt(2), +-sqrt(2) and infinity. They decide how large the numbers in C, E3 and E4
// are, and so the rounding errors: with 0, +-1, +-2 and infinity, errors are twice as large.
//
// S. Winograd, Arithmetic Complexity of Computations (1980); A. Lavin and S. Gray, arXiv:1509.09308.
#pragma once

#include <cstdint>
#include <vector>

#include "common_src/major.h"
#include "common_src/problem.h"
#include "cpu_src/isa.h"
#include "cpu_src/plan.h"

namespace convgrad::cpu {

// The tiles along one axis. A transformed axis has tiles of 4 results whose patch is 6 inputs; a filter's
// dilation splits it into phases, each with tiles of its own. On any other axis every result is a tile, whose
// patch has one input for each tap.
struct TilesAlong {
  bool transformed = false;
  int64_t count = 0, reach = 0, results = 0;  // tiles, and of each tile: inputs of its patch, results
  std::vector<int64_t> input, output;         // positions times `step`, tile by tile; kNone if there is none
};

// The tiles of a problem (of the transposed problem for dgrad) and their places in x and y.
class WinogradTiles {
 public:
  // Serves the problems for which winograd_axes() is not 0.
  explicit WinogradTiles(const ConvProblem& problem);

  int axes() const { return axes_; }
  int64_t points() const { return axes_ == 1 ? 6 : 36; }
  int64_t results() const { return axes_ == 1 ? 4 : 16; }
  int64_t tiles() const { return batch_ * along_[0].count * along_[1].count * along_[2].count; }

  // Taps along the axes that are not transformed; a sum runs over them as it runs over channels.
  int64_t other_taps() const { return other_taps_; }
  // Returns the filter tap that is first of those that one of the other taps ties to a tile, in the order of
  // the problem, and the step from one to the next.
  int64_t first_tap(int64_t other_tap) const;
  int64_t tap_step() const { return tap_step_; }

  // Writes pointers to the inputs of a tile's patch, or to `zeros` where it lies on padding.
  template <typename T>
  void point_at_patch(int64_t tile, int64_t other_tap, const T* x, const T* zeros, const T** patch) const;
  // Writes pointers to a tile's results, or `outside` where it ends.
  template <typename P>
  void point_at_results(int64_t tile, P* y, int64_t number_bytes, P* outside, P** results) const;

 private:
  struct Place {
    int64_t n, at[kAxes];
  };
  Place place(int64_t tile) const;

  int axes_;
  int64_t batch_, x_image_, y_image_, other_taps_, tap_step_;
  int64_t taps_[kAxes];
  TilesAlong along_[kAxes];
};

// Returns how many axes of the problem can be transformed: 3 taps, no stride, no input dilation.
int winograd_axes(const ConvProblem& problem);

// Reports whether the kernel serves the op.
bool winograd_serves(Op, const ConvProblem& problem);

// Reports whether it is expected to be faster than tiles of sums. The second function reports whether it is
// for any number of images, on any instruction set.
bool winograd_pays(Op, const ConvProblem& problem, Isa);
bool winograd_pays_for_some_batch(Op, const ConvProblem& problem);

// How fprop (or dgrad, of the transposed problem) is split.
struct WinogradPlan {
  WinogradPlan(const ConvProblem& problem, Major filter_major, Isa isa);

  const ConvProblem problem;
  const Major filter_major;
  const Isa isa;
  const WinogradTiles tiles;
  int lanes, vectors;      // of a panel of results
  bool shared;             // the filter is transformed once, into the workspace
  int64_t padded_results;  // of one group, in whole vectors
  int64_t block_tiles;     // that are transformed and multiplied together
  int64_t block_columns;   // results, and
  int64_t block_sources;   // sources of one such block
  int64_t column_blocks;   // of one group
  int64_t source_blocks;   // of one group and one other tap
  int64_t tile_blocks, task_blocks;

  int64_t panel_width() const { return static_cast<int64_t>(vectors) * lanes; }
  int64_t rows() const { return tiles.other_taps() * problem.group_in(); }
  int64_t point_step() const { return rows() * padded_results + 16; }  // in the transformed filter
  int64_t group_step() const { return tiles.points() * point_step(); }
  int64_t tile_ranges() const;
  int64_t tasks() const { return problem.groups * column_blocks * tile_ranges(); }
};

// Return the bytes of the workspace, which do not depend on the batch or the instruction set.
int64_t winograd_filter_bytes(const ConvProblem& problem);

// How wgrad is split: a task sums a block of the filter over some of the tiles.
struct WinogradFilterPlan {
  WinogradFilterPlan(const ConvProblem& problem, Isa isa);

  const ConvProblem problem;
  const Isa isa;
  const WinogradTiles tiles;
  int lanes, vectors;
  int64_t block_sources, block_columns, source_blocks, column_blocks;
  int64_t block_tiles, tile_blocks, parts;

  int64_t panel_width() const { return static_cast<int64_t>(vectors) * lanes; }
  int64_t units() const { return problem.groups * tiles.other_taps() * source_blocks * column_blocks; }
  int64_t tasks() const { return units() * parts; }
};
int64_t winograd_partial_bytes(const ConvProblem& problem);

template <typename T>
void WinogradTiles::point_at_patch(int64_t tile, int64_t other_tap, const T* x, const T* zeros,
                                   const T** patch) const {
  const Place of = place(tile);
  int64_t fixed = of.n * x_image_;
  const int64_t* offsets[2] = {};
  int found = 0;
  bool none = false;
  for (int a = kAxes - 1; a >= 0; --a) {
    const TilesAlong& along = along_[a];
    const int64_t* inputs = along.input.data() + of.at[a] * along.reach;
    if (along.transformed) {
      offsets[found++] = inputs;  // the inner axis comes first
      continue;
    }
    const int64_t input = inputs[other_tap % taps_[a]];
    other_tap /= taps_[a];
    none = none || input == kNone;
    fixed += input;
  }
  if (none) {
    for (int64_t point = 0; point < points(); ++point) patch[point] = zeros;
    return;
  }
  x += fixed;
  if (axes_ == 1) {
    for (int i = 0; i < 6; ++i) patch[i] = offsets[0][i] == kNone ? zeros : x + offsets[0][i];
    return;
  }
  for (int i = 0; i < 6; ++i) {
    for (int j = 0; j < 6; ++j) {
      const bool outside = offsets[1][i] == kNone || offsets[0][j] == kNone;
      patch[i * 6 + j] = outside ? zeros : x + offsets[1][i] + offsets[0][j];
    }
  }
}

template <typename P>
void WinogradTiles::point_at_results(int64_t tile, P* y, int64_t number_bytes, P* outside,
                                     P** results) const {
  const Place of = place(tile);
  int64_t fixed = of.n * y_image_;
  const int64_t* offsets[2] = {};
  int found = 0;
  for (int a = kAxes - 1; a >= 0; --a) {
    const TilesAlong& along = along_[a];
    const int64_t* outputs = along.output.data() + of.at[a] * along.results;
    if (along.transformed)
      offsets[found++] = outputs;
    else
      fixed += *outputs;
  }
  using Byte = std::conditional_t<std::is_const_v<P>, const char, char>;
  Byte* const first = reinterpret_cast<Byte*>(y) + fixed * number_bytes;
  const auto at = [&](int64_t offset) { return reinterpret_cast<P*>(first + offset * number_bytes); };
  for (int i = 0; i < (axes_ == 1 ? 1 : 4); ++i) {
    const int64_t outer = axes_ == 1 ? 0 : offsets[1][i];
    for (int j = 0; j < 4; ++j)
      results[i * 4 + j] = outer == kNone || offsets[0][j] == kNone ? outside : at(outer + offsets[0][j]);
  }
}

}  // namespace convgrad::cpu
