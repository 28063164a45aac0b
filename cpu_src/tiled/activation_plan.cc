#include "cpu_src/tiled/activation_plan.h"

#include <algorithm>
#include <limits>
#include <numeric>

#include "common_src/dispatch.h"
#include "common_src/integers.h"
#include "common_src/major.h"
#include "cpu_src/bf16_dots.h"
#include "cpu_src/flatten.h"
#include "cpu_src/microkernels/activation_tile.h"
#include "cpu_src/microkernels/dot_tile.h"
#include "cpu_src/pairs/pair_lists.h"

namespace convgrad::cpu {
namespace {

// With fewer merged numbers in a row, much of it, and of the workspace, would be rounding.
constexpr int64_t kManyPhases = 16, kMergedNumbers = 64;

int64_t merged_width_of(const ConvProblem& p) {
  // A panel may read one vector past the end; and rows an odd number of cache lines apart use all of the
  // cache's sets.
  constexpr int64_t kLine = 16;
  const int64_t numbers = ResultPhases(p.axis[2]).classes() * p.out_channels;
  return (divide_up(numbers, kLine) / 2 * 2 + 3) * kLine;
}

// Reports whether results that meet no tap would take most of the time as regions of their own: if they are
// the majority, or if there are many phases, or channels that do not fill a vector.
bool clears_first(const ConvProblem& p) {
  constexpr double kMost = 4;
  return std::any_of(std::begin(p.axis), std::end(p.axis), [&](const Axis& axis) {
    if (kMost * most_pairs(axis) < static_cast<double>(axis.output)) return true;
    const ResultPhases phases(axis);
    if (p.out_channels < widest_lanes(p.dtype)) return phases.count() > phases.classes();
    return phases.count() >= kManyPhases && phases.count() > 2 * phases.classes();
  });
}

// Reports whether the filter could be read in place: stored in the type of the sums, channels in whole
// vectors, taps in order.
bool fits_in_place(const ConvProblem& p, Major filter_major) {
  if (filter_major == Major::kK || (p.dtype != DType::kF32 && p.dtype != DType::kF64)) return false;
  if (p.group_out() % widest_lanes(p.dtype) != 0) return false;
  return std::all_of(std::begin(p.axis), std::end(p.axis),
                     [](const Axis& axis) { return axis.input_dilation == 1 || axis.taps == 1; });
}

// Limits beyond which it should not be read in place. Rows of a panel that are far apart share few of the
// cache's sets; that does not matter for a small filter, nor for one that few positions read.
constexpr int64_t kCachedFilter = 512 << 10, kFewPositions = 512;

int64_t filter_bytes(const ConvProblem& p) {
  return p.taps() * p.group_in() * p.out_channels * bytes_of(p.dtype);
}

const int* most_pixels(DType dtype, Isa isa, LanesAre lanes_are) {
  return dispatch(dtype, [&](auto stored) -> const int* {
    using T = typename decltype(stored)::type;
    if (lanes_are == LanesAre::kSources) return dot_tiles_of<T>(isa).most_pixels;
    return CONVGRAD_FOR_ISA(isa, activation_tiles<Sum<T>>()).most_pixels;
  });
}

int result_lanes(DType dtype, Isa isa, LanesAre lanes_are) {
  if (lanes_are == LanesAre::kSources) return 1;
  return dtype == DType::kF64 ? CONVGRAD_FOR_ISA(isa, activation_tiles<double>()).lanes
                              : CONVGRAD_FOR_ISA(isa, activation_tiles<float>()).lanes;
}

bool could_pair(const ConvProblem& p, LanesAre lanes_are, Isa isa) {
  return has_dots(p.dtype, isa) && lanes_are == LanesAre::kResults;
}

// Returns a tile's time for one term of its sums, in cycles of a machine that does two multiply-adds and two
// loads per cycle, and in which each sum waits four cycles for the one before.
double activation_tile_cycles(double pixels, int vectors) {
  const double loads = (pixels + vectors) / 2;
  return std::max({pixels * vectors / 2, loads, 4.0}) + loads / 16;
}

// Returns the time of one pixel if `count` of them lie along a tile's axis.
double pixel_cycles(int64_t count, int vectors, int64_t most) {
  const double pixels = static_cast<double>(count) / divide_up(std::max<int64_t>(count, 1), most);
  return activation_tile_cycles(pixels, vectors) / std::max(pixels, 1.0);
}

}  // namespace

bool merges_phases(const ConvProblem& p, LanesAre lanes_are) {
  const Axis& axis = p.axis[2];
  return lanes_are == LanesAre::kResults && p.groups == 1 && p.out_channels > 0 &&
         p.out_channels <= widest_lanes(p.dtype) && axis.taps > 1 && axis.input_dilation > 1 &&
         axis.input_dilation / std::gcd(axis.stride, axis.input_dilation) > 1 &&
         ResultPhases(axis).classes() * p.out_channels >= kMergedNumbers;
}

TilePlace Box::place(int64_t tile) const {
  const int64_t in_box = tile - first_tile, piece = in_box % tiles_along;
  int64_t line = in_box / tiles_along;
  const int64_t first = piece * least + std::min(piece, longer);
  TilePlace place{source + first * source_step[along], result + first * result_step[along],
                  least + (piece < longer)};
  for (const int axis : {2, 1, 0, 3}) {
    if (axis == along || extent[axis] == 1) continue;
    const int64_t at = line % extent[axis];
    line /= extent[axis];
    place.source += at * source_step[axis];
    place.result += at * result_step[axis];
  }
  return place;
}

ActivationPlan::ActivationPlan(const ConvProblem& problem, Major filter_major, LanesAre lanes_are, Isa isa)
    : isa(isa),
      filter_major(filter_major),
      lanes_are(lanes_are),
      problem(flatten(problem)),
      lanes(result_lanes(problem.dtype, isa, lanes_are)),
      merges(merges_phases(this->problem, lanes_are)),
      clears(clears_first(this->problem)),
      packed(packed_filter_bytes(problem, filter_major, lanes_are) > 0 &&
             (merges || !(lanes_are == LanesAre::kResults && fits_in_place(problem, filter_major) &&
                          problem.batch * problem.outputs() < kFewPositions))),
      pairs_over_taps(could_pair(this->problem, lanes_are, isa) && !merges && this->problem.groups == 1 &&
                      this->problem.in_channels % 2 != 0 && this->problem.axis[2].taps > 1 &&
                      this->problem.axis[2].input_dilation == 1 &&
                      this->problem.axis[2].filter_dilation == 1),
      pairs(pairs_over_taps ||
            (could_pair(this->problem, lanes_are, isa) && !merges && this->problem.group_in() > 1)) {
  list_regions();
  panels = merges ? 1 : divide_up(this->problem.group_out(), panel_width());
  split();
}

void ActivationPlan::list_regions() {
  // Vectors are chosen for the largest box, which takes most of the time.
  int64_t largest[kAxes + 1] = {0, 0, 0, problem.batch};
  for (int axis = 0; axis < kAxes; ++axis) {
    tap_order[axis] = packed_taps(problem.axis[axis]);
    met[axis] = tap_bounds(problem.axis[axis], 0, problem.axis[axis].output);
    const ResultPhases phases(problem.axis[axis]);
    if (merges && axis == 2) {
      merged_taps = phases.first_taps();
      merged_taps2_ = phases.class_taps();
      const std::vector<Region> tied = phases.tied();
      int64_t most = 1;
      for (const Region& run : tied) {
        most = std::max(most, run.phases);
        largest[axis] = std::max(largest[axis], run.count);
      }
      choose_vectors(most * problem.out_channels, largest);
      vectors = std::max(vectors, static_cast<int>(divide_up(problem.out_channels, lanes)));
      const int64_t side_by_side = std::max<int64_t>(panel_width() / problem.out_channels, 1);
      int64_t next = 0;  // phase
      const auto add_untied = [&](int64_t end) {
        for (; !clears && next < end; ++next) add_regions(problem.axis[axis], phases[next], regions_[axis]);
      };
      for (const Region& run : tied) {
        add_untied(run.result_first);
        const int64_t pieces = divide_up(run.phases, side_by_side);
        for (int64_t piece = 0; piece < pieces; ++piece) {
          const int64_t first = run.phases * piece / pieces;
          Region part = run;
          part.result_first += first;
          part.first_class += first;
          part.phases = run.phases * (piece + 1) / pieces - first;
          add_regions(problem.axis[axis], part, regions_[axis]);
        }
        next = run.result_first + run.phases;
      }
      add_untied(phases.count());
    } else if (clears) {
      for (const Region& run : phases.tied()) {
        for (int64_t phase = run.result_first; phase < run.result_first + run.phases; ++phase)
          add_regions(problem.axis[axis], phases[phase], regions_[axis]);
      }
    } else {
      regions_[axis] = regions(problem.axis[axis]);
    }
    if (clears) {
      auto& listed = regions_[axis];
      listed.erase(std::remove_if(listed.begin(), listed.end(), [](const Region& r) { return r.taps == 0; }),
                   listed.end());
    }
    for (const Region& region : regions_[axis]) largest[axis] = std::max(largest[axis], region.count);
  }
  if (!merges) choose_vectors(problem.group_out(), largest);
}

void ActivationPlan::choose_vectors(int64_t channels, const int64_t (&largest)[kAxes + 1]) {
  const int64_t needed = divide_up(channels, lanes);
  double best = std::numeric_limits<double>::infinity();
  vectors = 1;
  for (int candidate = 1; candidate <= kMaxTileVectors; ++candidate) {
    double cycles = 0;
    for (int64_t left = needed; left > 0; left -= candidate) {
      const int width = static_cast<int>(std::min<int64_t>(left, candidate));
      double pixel = std::numeric_limits<double>::infinity();
      for (const int64_t count : largest)
        pixel =
            std::min(pixel, pixel_cycles(count, width, most_pixels(problem.dtype, isa, lanes_are)[width]));
      cycles += pixel;
    }
    if (cycles < best) best = cycles, vectors = candidate;
  }
}

int64_t ActivationPlan::merged_width() const { return merged_width_of(problem); }

int64_t ActivationPlan::filter_tap(int64_t packed_tap) const {
  return filter_tap(packed_tap, tap_order[2][packed_tap % problem.axis[2].taps]);
}

int64_t ActivationPlan::filter_tap(int64_t packed_tap, int64_t r2) const {
  const Axis* axis = problem.axis;
  const int64_t place[kAxes - 1] = {packed_tap / (axis[1].taps * axis[2].taps),
                                    packed_tap / axis[2].taps % axis[1].taps};
  const int64_t r[kAxes] = {tap_order[0][place[0]], tap_order[1][place[1]], r2};
  int64_t tap = 0;
  for (int at = 0; at < kAxes; ++at)
    tap = tap * axis[at].taps + (filter_major == Major::kK ? axis[at].taps - 1 - r[at] : r[at]);
  return tap;
}

int64_t ActivationPlan::met_tap(int64_t index) const {
  const int64_t in_plane = met[1].count() * met[2].count();
  const int64_t at[kAxes] = {index / in_plane, index / met[2].count() % met[1].count(),
                             index % met[2].count()};
  int64_t place = 0;
  for (int a = 0; a < kAxes; ++a)
    place = place * problem.axis[a].taps + packed_place(problem.axis[a], met[a].first + at[a]);
  return place;
}

int64_t ActivationPlan::packed_channels() const {
  return divide_up(problem.group_out(), widest_lanes(problem.dtype)) * widest_lanes(problem.dtype);
}

PanelRows ActivationPlan::panel_rows(int64_t group, int64_t first_channel, int panel_vectors) const {
  if (!packed) return {group * problem.group_out() + first_channel, problem.out_channels};
  return {filter_rows() * (group * packed_channels() + first_channel),
          static_cast<int64_t>(panel_vectors) * lanes};
}

Box ActivationPlan::box(int64_t index) const {
  const ConvProblem& p = problem;
  Box box;
  int64_t at[kAxes];
  for (int axis = kAxes; axis-- > 0;) {
    const int64_t count = static_cast<int64_t>(regions_[axis].size());
    at[axis] = index % count;
    index /= count;
  }
  int64_t source_size = p.in_channels, result_size = p.out_channels;  // of one position
  box.source = box.result = 0;
  for (int axis = kAxes; axis-- > 0;) {
    const Region& region = regions_[axis][at[axis]];
    box.region[axis] = &region;
    box.extent[axis] = region.count;
    box.source_step[axis] = region.source_step * source_size;
    box.result_step[axis] = region.result_step * result_size;
    box.source += region.source_first * source_size;
    box.result += region.result_first * result_size;
    source_size *= p.axis[axis].input;
    result_size *= p.axis[axis].output;
  }
  box.extent[3] = p.batch / images_;
  box.source_step[3] = source_size;
  box.result_step[3] = result_size;
  // Along the innermost axis neighbours share sources in the cache, so another axis must be clearly better.
  const int64_t most = most_pixels(problem.dtype, isa, lanes_are)[vectors];
  box.along = 2;
  for (const int axis : {1, 0, 3}) {
    if (pixel_cycles(box.extent[axis], vectors, most) <
        0.9 * pixel_cycles(box.extent[box.along], vectors, most))
      box.along = axis;
  }
  box.tiles_along = divide_up(box.extent[box.along], most);
  box.tiles = box.tiles_along;
  // As even as possible.
  box.least = box.extent[box.along] / std::max<int64_t>(box.tiles_along, 1);
  box.longer = box.extent[box.along] % std::max<int64_t>(box.tiles_along, 1);
  for (int axis = 0; axis <= kAxes; ++axis) {
    if (axis != box.along) box.tiles *= box.extent[axis];
  }
  return box;
}

Box ActivationPlan::box_of(int64_t tile) const {
  const int64_t an_image = first_tiles_.back(), image = tile / an_image;
  const auto after = std::upper_bound(first_tiles_.begin(), first_tiles_.end(), tile % an_image);
  const int64_t index = after - first_tiles_.begin() - 1;
  Box found = box(index);
  found.first_tile = image * an_image + first_tiles_[index];
  if (images_ > 1) {
    found.source += image * found.source_step[3];
    found.result += image * found.result_step[3];
  }
  return found;
}

int64_t ActivationPlan::boxes() const {
  int64_t boxes = 1;
  for (const auto& axis_regions : regions_) boxes *= static_cast<int64_t>(axis_regions.size());
  return boxes;
}

int64_t ActivationPlan::tile_pixels() const {
  int64_t largest = 0, pixels = 0;
  for (int64_t index = 0; index < boxes(); ++index) {
    const Box box = this->box(index);
    const int64_t results = box.extent[0] * box.extent[1] * box.extent[2];
    if (results <= largest) continue;
    largest = results;
    pixels = divide_up(box.extent[box.along], box.tiles_along);
  }
  return pixels;
}

void ActivationPlan::split() {
  constexpr int64_t kTasks = 64, kTaskTerms = 1 << 20, kLargeImage = 256 << 10;
  const int64_t image_bytes =
      (problem.inputs() * problem.in_channels + problem.outputs() * problem.out_channels) *
      bytes_of(problem.dtype);
  if (image_bytes >= kLargeImage) images_ = std::max<int64_t>(problem.batch, 1);
  const int64_t boxes = this->boxes();
  // Accumulates the costs of the boxes, in terms of their sums; a box with fewer terms must still be stored.
  constexpr int64_t kStored = 32;
  std::vector<int64_t> cost_before(1, 0);
  first_tiles_.assign(1, 0);
  for (int64_t index = 0; index < boxes; ++index) {
    const Box box = this->box(index);
    const int64_t terms =
        box.region[0]->taps * box.region[1]->taps * box.region[2]->taps * problem.group_in();
    first_tiles_.push_back(first_tiles_.back() + box.tiles);
    cost_before.push_back(cost_before.back() + box.tiles * std::max<int64_t>(terms, kStored) *
                                                   box.region[2]->phases *
                                                   divide_up(box.extent[box.along], box.tiles_along));
  }
  const int64_t tiles = images_ * first_tiles_.back(), an_image = cost_before.back(),
                cost = images_ * an_image;
  const int64_t wanted = std::clamp<int64_t>(cost * problem.out_channels / kTaskTerms, 1, kTasks);
  // A filter larger than a core's cache is processed one panel at a time.
  const int64_t all_panels = panels * problem.groups;
  const int64_t tile_parts = std::clamp<int64_t>(
      filter_bytes(problem) > kCachedFilter ? wanted / all_panels : wanted, 1, std::max<int64_t>(tiles, 1));
  panel_parts_ = std::clamp<int64_t>(divide_up(wanted, tile_parts), 1, std::max<int64_t>(all_panels, 1));
  tile_bounds_.assign(1, 0);
  for (int64_t part = 1; part < tile_parts; ++part) {
    const int64_t bound = cost / tile_parts * part, in_image = bound % an_image;
    const int64_t index =
        std::upper_bound(cost_before.begin(), cost_before.end(), in_image) - cost_before.begin() - 1;
    const int64_t box_tiles = first_tiles_[index + 1] - first_tiles_[index];
    const int64_t each = (cost_before[index + 1] - cost_before[index]) / box_tiles;
    tile_bounds_.push_back(bound / an_image * first_tiles_.back() + first_tiles_[index] +
                           (in_image - cost_before[index]) / each);
  }
  tile_bounds_.push_back(tiles);
}

ActivationTask ActivationPlan::task(int64_t index) const {
  const int64_t tile_part = index / panel_parts_, panel_part = index % panel_parts_;
  const int64_t all_panels = panels * problem.groups;
  return {tile_bounds_[tile_part], tile_bounds_[tile_part + 1], all_panels * panel_part / panel_parts_,
          all_panels * (panel_part + 1) / panel_parts_};
}

int64_t packed_filter_bytes(const ConvProblem& problem, Major filter_major, LanesAre lanes_are) {
  const int64_t rows = problem.taps() * problem.in_channels;
  if (merges_phases(problem, lanes_are)) {
    const int64_t places =
        problem.axis[0].taps * problem.axis[1].taps * ResultPhases(problem.axis[2]).class_taps();
    return places * problem.in_channels * merged_width_of(problem) * bytes_of_sum(problem.dtype);
  }
  // For dot, dgrad's filter is stored with its rows along the sources; fprop's has to be transposed.
  if (lanes_are == LanesAre::kSources)
    return filter_major == Major::kK ? 0 : rows * problem.group_out() * bytes_of(problem.dtype);
  if (fits_in_place(problem, filter_major) && filter_bytes(problem) <= kCachedFilter) return 0;
  const int64_t lanes = widest_lanes(problem.dtype);
  return rows * divide_up(problem.group_out(), lanes) * lanes * sum_bytes(problem.dtype);
}

}  // namespace convgrad::cpu
