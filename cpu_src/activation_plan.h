// How fprop's or dgrad's results are split into boxes, tiles and tasks: a pure function of the problem and
// the instruction set.
#pragma once

#include <cstdint>
#include <vector>

#include "cpu_src/isa.h"
#include "cpu_src/regions.h"
#include "ffi_src/problem.h"

namespace convgrad::cpu {

// Where a tile begins, in elements, group and panel aside.
struct TilePlace {
  int64_t source, result, pixels;
};

// The results of one region an axis. Its tiles lie along axis `along`, 0 to 2 or 3 for the batch, as evenly
// as can be.
struct Box {
  const Region* region[kAxes];
  int64_t extent[kAxes + 1];       // positions
  int64_t source_step[kAxes + 1];  // elements from one position to the next
  int64_t result_step[kAxes + 1];
  int64_t source, result;  // the first position's place
  int along;
  int64_t tiles_along, tiles;
  int64_t first_tile = 0;

  TilePlace place(int64_t tile) const;
};

// Tiles [first_tile, last_tile) of all boxes, panels [first_panel, last_panel) of all groups.
struct ActivationTask {
  int64_t first_tile, last_tile, first_panel, last_panel;
};

// Where a panel's filter rows are, from the first on and `step` apart.
struct PanelRows {
  int64_t first, step;
};

// What the lanes of a vector are: neighbouring channels of the result (tiled_activation.cc), or of the source
// (dot_activation.cc), where a result channel is a vector of its own.
enum class LanesAre { kResults, kSources };

class ActivationPlan {
 public:
  // For dgrad the problem is the transposed one, and the filter as fprop has it.
  ActivationPlan(const ConvProblem& problem, bool transposed, LanesAre lanes_are, Isa isa);

  const Isa isa;
  const bool transposed;
  const LanesAre lanes_are;
  const ConvProblem problem;  // trivial axes merged
  const int lanes;            // result channels of a vector
  int vectors;                // of a panel: the channels that a tile's pixels are computed for at once
  int64_t panels;             // of one group, the last one maybe narrower
  std::vector<int64_t> tap_order[kAxes];  // packed_taps() of each axis
  bool packed;                            // whether the filter is copied, panel by panel, or read where it is

  // The tap at a packed position, as the filter has it (dgrad's are flipped).
  int64_t filter_tap(int64_t packed_tap) const;
  int64_t panel_width() const { return static_cast<int64_t>(vectors) * lanes; }
  int64_t filter_rows() const { return problem.taps() * problem.group_in(); }
  int64_t packed_channels() const;  // of one group, rounded up to whole vectors
  PanelRows panel_rows(int64_t group, int64_t first_channel, int panel_vectors) const;

  int64_t tasks() const { return panel_parts_ * static_cast<int64_t>(tile_bounds_.size() - 1); }
  ActivationTask task(int64_t index) const;
  Box box_of(int64_t tile) const;
  int64_t boxes() const;
  int64_t tile_pixels() const;  // of the longest tile in the largest box

 private:
  Box box(int64_t index) const;
  void choose_vectors();
  void split();

  std::vector<Region> regions_[kAxes];
  // Boxes are those of one image where images are large, so that its lines are in the cache for all of them;
  // of the whole batch where they are small.
  int64_t images_ = 1;
  std::vector<int64_t> first_tiles_;  // of each box of an image, and behind the last
  std::vector<int64_t> tile_bounds_;  // of each part of the tiles
  int64_t panel_parts_ = 1;
};

// Bytes of the packed filter, for any instruction set: a function of the filter's shape alone.
int64_t packed_filter_bytes(const ConvProblem& problem, bool transposed, LanesAre lanes_are);

}  // namespace convgrad::cpu
