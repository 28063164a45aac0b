// Splits the results of fprop or dgrad into boxes, tiles and tasks: a pure function of the problem and the
// instruction set.
#pragma once

#include <cstdint>
#include <vector>

#include "common_src/major.h"
#include "common_src/problem.h"
#include "cpu_src/isa.h"
#include "cpu_src/regions.h"

namespace convgrad::cpu {

// The start of a tile, in elements, without group and panel.
struct TilePlace {
  int64_t source, result, pixels;
};

// The results of one region per axis. Its tiles lie along axis `along` (0 to 2, or 3 for the batch), as
// evenly as possible.
struct Box {
  const Region* region[kAxes];
  int64_t extent[kAxes + 1];       // positions
  int64_t source_step[kAxes + 1];  // elements from one position to the next
  int64_t result_step[kAxes + 1];
  int64_t source, result;  // the first position's place
  int along;
  int64_t tiles_along, tiles;
  int64_t least, longer;  // pixels of a tile, and how many tiles of a line have one more
  int64_t first_tile = 0;

  TilePlace place(int64_t tile) const;
};

// Tiles [first_tile, last_tile) of all boxes, panels [first_panel, last_panel) of all groups.
struct ActivationTask {
  int64_t first_tile, last_tile, first_panel, last_panel;
};

// The place of a panel's filter rows: the first, and the step from row to row.
struct PanelRows {
  int64_t first, step;
};

// What a vector's lanes are: neighbouring channels of the result (activation.cc), or of the source
// (dot/activation.cc), where each result channel has a vector of its own.
enum class LanesAre { kResults, kSources };

class ActivationPlan {
 public:
  // For dgrad the problem is the transposed one, and the filter is stored as for fprop.
  ActivationPlan(const ConvProblem& problem, Major filter_major, LanesAre lanes_are, Isa isa);

  const Isa isa;
  const Major filter_major;
  const LanesAre lanes_are;
  const ConvProblem problem;  // pointwise axes merged
  const int lanes;            // result channels of a vector
  int vectors;                // of a panel: the channels that a tile computes at once for its pixels
  int64_t panels;             // of one group; the last may be narrower
  std::vector<int64_t> tap_order[kAxes];  // packed_taps() of each axis
  // With few channels, and phases side by side along the innermost axis, the results of neighbouring phases
  // are treated as the channels of one long pixel. A row of the packed filter then holds the channels of all
  // phases, and merged_taps[class] their taps. Each sum has the same terms in the same order either way.
  const bool merges;
  std::vector<int64_t> merged_taps;
  // Most results meet no tap: all are written first, as if none did, and boxes hold only those that do.
  const bool clears;
  bool packed;  // the filter is copied panel by panel, not read in place
  // The sums are dot products of pairs of source channels (bf16_dots.h). If channels are even, the sources
  // are read in place. Otherwise they are copied: pairs go on from each tap of the innermost axis to the next
  // if pairs_over_taps, else a zero completes each tap's last pair.
  const bool pairs_over_taps, pairs;

  // Returns the filter's tap for a packed position (dgrad's taps are flipped).
  int64_t filter_tap(int64_t packed_tap) const;
  // The same with tap r2 of the innermost axis given by its number, whatever packed_tap's is.
  int64_t filter_tap(int64_t packed_tap, int64_t r2) const;
  // Taps that any result may meet, axis by axis: only these are packed. met_tap() maps an index below their
  // product to the packed position of one of them.
  TapBounds met[kAxes];
  int64_t met_taps() const { return met[0].count() * met[1].count() * met[2].count(); }
  int64_t met_tap(int64_t index) const;
  int64_t panel_width() const { return static_cast<int64_t>(vectors) * lanes; }
  // A term is what one step of a tile multiplies: a source channel, or a pair of them.
  int64_t numbers_of_term() const { return pairs ? 2 : 1; }
  int64_t terms_of_tap() const { return (problem.group_in() + numbers_of_term() - 1) / numbers_of_term(); }
  bool reads_pairs_in_place() const { return pairs && problem.group_in() % 2 == 0; }
  // Returns the terms of all taps of the innermost axis.
  int64_t terms_of_row() const {
    const int64_t taps = problem.axis[2].taps;
    return pairs_over_taps ? (taps * problem.group_in() + 1) / 2 : taps * terms_of_tap();
  }
  int64_t filter_rows() const { return problem.axis[0].taps * problem.axis[1].taps * terms_of_row(); }
  // Returns the place of a packed tap's first term among the filter's rows; with pairs_over_taps that term
  // may begin with the last number of the tap before.
  int64_t first_term(int64_t packed_tap) const {
    if (!pairs_over_taps) return packed_tap * terms_of_tap();
    const int64_t taps = problem.axis[2].taps;
    return packed_tap / taps * terms_of_row() + packed_tap % taps * problem.group_in() / 2;
  }
  int64_t packed_channels() const;  // of one group, rounded up to whole vectors
  int64_t merged_width() const;     // of a packed row of merged phases
  PanelRows merged_panel(const Box& box) const {
    return {box.region[2]->first_class * problem.out_channels, merged_width()};
  }
  // Returns the number of places of taps along the innermost axis in the packed filter.
  int64_t packed_taps2() const { return merges ? merged_taps2_ : problem.axis[2].taps; }
  // Returns the result channels of a box's pixel, all groups together.
  int64_t box_channels(const Box& box) const { return problem.out_channels * box.region[2]->phases; }
  PanelRows panel_rows(int64_t group, int64_t first_channel, int panel_vectors) const;

  int64_t tasks() const { return panel_parts_ * static_cast<int64_t>(tile_bounds_.size() - 1); }
  ActivationTask task(int64_t index) const;
  Box box_of(int64_t tile) const;
  int64_t boxes() const;
  int64_t tile_pixels() const;  // of the longest tile in the largest box

 private:
  Box box(int64_t index) const;
  void list_regions();
  void choose_vectors(int64_t channels, const int64_t (&largest)[kAxes + 1]);
  void split();

  std::vector<Region> regions_[kAxes];
  int64_t merged_taps2_ = 0;
  // If images are large, boxes cover one image each, so that all boxes find its lines in the cache; if images
  // are small, boxes cover the whole batch.
  int64_t images_ = 1;
  std::vector<int64_t> first_tiles_;  // of each box of an image, and one past the last
  std::vector<int64_t> tile_bounds_;  // of each part of the tiles
  int64_t panel_parts_ = 1;
};

// Reports whether results of neighbouring phases are merged side by side in a panel, on every instruction
// set: a function of the filter's shape and the steps. For dgrad the problem is the transposed one.
bool merges_phases(const ConvProblem& problem, LanesAre lanes_are);

// Returns the bytes of the packed filter for every instruction set: a function of the filter's shape alone.
int64_t packed_filter_bytes(const ConvProblem& problem, Major filter_major, LanesAre lanes_are);

}  // namespace convgrad::cpu
