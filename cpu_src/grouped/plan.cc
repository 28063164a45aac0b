#include "cpu_src/grouped/plan.h"

#include <algorithm>
#include <limits>

#include "common_src/integers.h"
#include "common_src/major.h"
#include "cpu_src/flatten.h"
#include "cpu_src/microkernels/grouped_tile.h"

namespace convgrad::cpu {
namespace {

constexpr int64_t kPanelBytes = 512;        // of a pixel's channels, in the type of the sums
constexpr int64_t kBufferBytes = 32 << 10;  // of buffered rows, in the first-level cache
// Numbers of 16 bits are converted when they are buffered, and few long strips convert fewer of them twice.
constexpr int64_t kConvertedBufferBytes = 128 << 10;
constexpr int64_t kLeastPixels = 14;       // of a strip
constexpr int64_t kNearBytes = 8 << 20;    // of activations, which the caches keep
constexpr int64_t kServedBytes = 1 << 20;  // of the fewest buffered rows, in the second-level cache

// Merges pointwise axes and moves what is left of them to the front, so that the innermost axis is long.
ConvProblem along_innermost(const ConvProblem& given) {
  ConvProblem problem = flatten(given);
  for (int moved = 0; moved + 1 < kAxes && is_pointwise(problem.axis[2]) && problem.axis[2].input == 1;
       ++moved) {
    problem.axis[2] = problem.axis[1];
    problem.axis[1] = problem.axis[0];
    problem.axis[0] = Axis{};
  }
  return problem;
}

// Returns the source positions from the first to the last tap of one result.
int64_t span(const Axis& axis) {
  return std::max<int64_t>((axis.taps - 1) * axis.filter_dilation / axis.input_dilation + 1, 1);
}

}  // namespace

GroupedPlan::GroupedPlan(const ConvProblem& problem, Major filter_major, Isa isa)
    : isa(isa),
      filter_major(filter_major),
      problem(along_innermost(problem)),
      lanes(problem.dtype == DType::kF64 ? CONVGRAD_FOR_ISA(isa, grouped_tiles<double>()).lanes
                                         : CONVGRAD_FOR_ISA(isa, grouped_tiles<float>()).lanes),
      phases{ResultPhases(this->problem.axis[0]), ResultPhases(this->problem.axis[1]),
             ResultPhases(this->problem.axis[2])} {
  const ConvProblem& p = this->problem;
  for (int axis = 0; axis < kAxes; ++axis) tap_order[axis] = packed_taps(p.axis[axis]);
  vectors = divide_up(p.out_channels, lanes);
  rows = p.axis[2].output > 0 ? p.batch * p.axis[0].output * p.axis[1].output : 0;
  const int64_t elements = p.batch * (p.inputs() * p.in_channels + p.outputs() * p.out_channels);
  reads_ahead = elements * bytes_of(p.dtype) > kNearBytes;
  ring = (phases[1].most_met_taps() - 1) * phases[1].tap_step() + 1;
  choose_panels();
}

void GroupedPlan::choose_panels() {
  const Axis& along = problem.axis[2];
  const int64_t width = along.output, reach = span(along);
  const auto columns = [&](int64_t results) { return results * along.stride / along.input_dilation + reach; };
  const int64_t vector_bytes = lanes * sum_bytes(problem.dtype);
  const int64_t pixel_bytes = (buffered_rows() * copies() + 1) * vector_bytes;
  const int64_t buffer_bytes = bytes_of(problem.dtype) == 2 ? kConvertedBufferBytes : kBufferBytes;
  // A strip is at least as wide as a tile and as twice the taps' reach, which neighbouring strips both read.
  const int64_t least = std::clamp<int64_t>(width, 1, std::max<int64_t>(2 * reach, kLeastPixels));
  const int64_t most = std::clamp<int64_t>(vectors, 1, kPanelBytes / vector_bytes);
  panel_vectors = std::clamp<int64_t>(buffer_bytes / (pixel_bytes * columns(least)), 1, most);
  panels = divide_up(vectors, panel_vectors);
  panel_vectors = divide_up(vectors, std::max<int64_t>(panels, 1));
  const int64_t room = buffer_bytes / (pixel_bytes * panel_vectors) - reach;
  const int64_t wide = std::clamp<int64_t>(room * along.input_dilation / along.stride, least, 512);
  // A few long rows are also split among tasks.
  const int64_t wanted = divide_up(grouped_tasks(problem), std::max<int64_t>(rows * panels, 1));
  strips = std::max(divide_up(width, wide), std::min(wanted, width / least));
}

Strip GroupedPlan::strip(int64_t index) const {
  const int64_t width = problem.axis[2].output;
  return {width * index / strips, width * (index + 1) / strips};
}

Ahead GroupedPlan::ahead(const Strip& strip, int64_t rows) const {
  const Axis& along = problem.axis[2];
  const int64_t width = strip.last - strip.first;
  return {rows > 1,
          (rows > 1 ? along.input : width * along.stride / along.input_dilation) * problem.in_channels,
          (rows > 1 ? along.output : width) * problem.out_channels};
}

std::vector<StripPhase> GroupedPlan::phases_of(const Strip& strip) const {
  std::vector<StripPhase> found;
  // A strip meets at most as many phases as it has results; they are listed in the order of phases.
  const int64_t step = phases[2].o_step(), count = std::min(phases[2].count(), strip.last - strip.first);
  const int64_t begin = count == phases[2].count() ? 0 : strip.first % step,
                wrapped = std::max<int64_t>(begin + count - step, 0);
  for (int64_t at = 0; at < count; ++at) {
    const Region phase = phases[2][at < wrapped ? at : begin + at - wrapped];
    const auto first_from = [&](int64_t o) {
      return o <= phase.result_first ? 0 : divide_up(o - phase.result_first, phase.result_step);
    };
    const StripPhase part{phase, first_from(strip.first), first_from(strip.last)};
    if (part.first < part.last) found.push_back(part);
  }
  return found;
}

ResultRow GroupedPlan::result_row(int64_t index) const {
  const int64_t outputs0 = problem.axis[0].output, outputs1 = problem.axis[1].output;
  const auto one = [&](int axis, int64_t o) {
    const Region phase = phases[axis][o % phases[axis].o_step()];
    return region_of_one(problem.axis[axis], phase, o / phase.result_step);
  };
  return {index / (outputs0 * outputs1), index, one(0, index / outputs1 % outputs0),
          one(1, index % outputs1)};
}

namespace {

// Returns the source positions that a strip meets: [first, last).
Strip sources_of(const std::vector<StripPhase>& parts) {
  Strip found{std::numeric_limits<int64_t>::max(), std::numeric_limits<int64_t>::min()};
  for (const StripPhase& part : parts) {
    const Region& phase = part.phase;
    if (phase.taps == 0) continue;
    found.first = std::min(found.first, phase.source_first + phase.source_step * part.first);
    found.last = std::max(found.last, phase.source_first + phase.source_step * (part.last - 1) +
                                          phase.tap_source_step * (phase.taps - 1) + 1);
  }
  return found.first < found.last ? found : Strip{0, 0};
}

}  // namespace

RowLayout GroupedPlan::layout_by_phase(const Strip& strip) const {
  const Strip sources = sources_of(phases_of(strip));
  RowLayout layout;
  layout.first = sources.first;
  layout.residues = phases[2].output_step();
  layout.columns = divide_up(sources.last - sources.first, layout.residues);
  layout.column_step = lanes;
  layout.residue_step = layout.columns * lanes;
  layout.copy_step = layout.residues * layout.residue_step;
  layout.vector_step = copies() * layout.copy_step;
  return layout;
}

RowLayout GroupedPlan::layout_by_position(const Strip& strip) const {
  const Strip sources = sources_of(phases_of(strip));
  RowLayout layout;
  layout.first = sources.first;
  layout.columns = sources.last - sources.first;
  layout.column_step = copies() * lanes;
  layout.copy_step = lanes;
  layout.vector_step = layout.columns * layout.column_step;
  return layout;
}

int64_t GroupedPlan::filter_tap(int64_t packed_tap) const {
  const Axis* axis = problem.axis;
  const int64_t place[kAxes] = {packed_tap / (axis[1].taps * axis[2].taps),
                                packed_tap / axis[2].taps % axis[1].taps, packed_tap % axis[2].taps};
  int64_t tap = 0;
  for (int a = 0; a < kAxes; ++a) {
    const int64_t r = tap_order[a][place[a]];
    tap = tap * axis[a].taps + (filter_major == Major::kK ? axis[a].taps - 1 - r : r);
  }
  return tap;
}

bool grouped_serves(const ConvProblem& p) {
  if (p.groups <= 1 || p.group_in() < 1 || p.group_out() < 1) return false;
  if (std::max(p.group_in(), p.group_out()) > widest_lanes(p.dtype)) return false;
  const auto fits = [](const ConvProblem& problem) {
    // Multiplied as doubles, which cannot overflow.
    const double least_rows =
        static_cast<double>(problem.axis[0].taps) * static_cast<double>(span(problem.axis[1]));
    const double pixels = 2.0 * static_cast<double>(span(problem.axis[2])) + kMaxGroupedPixels;
    return least_rows * pixels * static_cast<double>(problem.group_in()) * 64 <= kServedBytes;
  };
  return fits(p) && fits(p.transpose()) && p.taps() * p.group_in() * 64 <= kServedBytes;
}

int64_t grouped_tasks(const ConvProblem& p) {
  const double terms = static_cast<double>(p.batch) * static_cast<double>(std::min(p.outputs(), p.inputs())) *
                       static_cast<double>(p.taps()) * static_cast<double>(p.group_in() * p.out_channels);
  return static_cast<int64_t>(std::clamp(terms / (1 << 20), 1.0, 64.0));
}

bool grouped_reads_in_place(const ConvProblem& p, Major filter_major) {
  if (p.dtype != DType::kF32 && p.dtype != DType::kF64) return false;
  if (p.out_channels % widest_lanes(p.dtype) != 0) return false;
  if (filter_major == Major::kK && (p.group_in() != 1 || p.group_out() != 1)) return false;
  return std::all_of(std::begin(p.axis), std::end(p.axis),
                     [](const Axis& axis) { return axis.input_dilation == 1 || axis.taps == 1; });
}

int64_t grouped_filter_bytes(const ConvProblem& p, Major filter_major) {
  if (grouped_reads_in_place(p, filter_major)) return 0;
  const int64_t lanes = widest_lanes(p.dtype);
  return p.taps() * p.group_in() * divide_up(p.out_channels, lanes) * lanes * sum_bytes(p.dtype);
}

int64_t grouped_wgrad_parts(const ConvProblem& p) {
  const int64_t channels = kPanelBytes / sum_bytes(p.dtype);
  const int64_t wanted =
      divide_up(grouped_tasks(p), std::max<int64_t>(divide_up(p.out_channels, channels), 1));
  const int64_t filter = p.taps() * p.group_in() * p.out_channels;
  const int64_t activations = p.batch * (p.inputs() * p.in_channels + p.outputs() * p.out_channels);
  const int64_t room = std::max(filter, activations / 20) * bytes_of(p.dtype);
  return std::clamp<int64_t>(std::min(wanted, room / std::max<int64_t>(filter * sum_bytes(p.dtype), 1)), 1,
                             64);
}

int64_t grouped_wgrad_bytes(const ConvProblem& p) {
  const int64_t parts = grouped_wgrad_parts(p);
  return parts > 1 ? parts * p.taps() * p.group_in() * p.out_channels * sum_bytes(p.dtype) : 0;
}

}  // namespace convgrad::cpu
