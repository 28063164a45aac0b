#include "cpu_src/regions.h"

#include <algorithm>
#include <numeric>
#include <utility>

#include "common_src/integers.h"

namespace convgrad::cpu {
namespace {

int64_t tap_step(const Axis& axis) {
  return axis.input_dilation / std::gcd(axis.filter_dilation, axis.input_dilation);
}

// Returns how many taps precede the class that begins with tap `first` in packed order. The first few of
// `step` classes have one tap more.
int64_t packed_before(const Axis& axis, int64_t step, int64_t first) {
  return first * (axis.taps / step) + std::min(first, axis.taps % step);
}

}  // namespace

std::vector<int64_t> packed_taps(const Axis& axis) {
  const int64_t step = tap_step(axis);
  std::vector<int64_t> order;
  order.reserve(axis.taps);
  for (int64_t first = 0; first < std::min(step, axis.taps); ++first) {
    for (int64_t r = first; r < axis.taps; r += step) order.push_back(r);
  }
  return order;
}

Region ResultPhases::operator[](int64_t phase) const {
  const PhaseAxis p = of_output(phase);
  const int64_t tap_first = p.taps == 0 ? 0 : packed_before(axis_, p.r_step, p.r_first);
  return {p.o_first, p.o_step, p.outputs, p.first_start, p.output_step, tap_first, p.taps, p.tap_step};
}

int64_t ResultPhases::class_taps() const { return std::max<int64_t>(most_taps(), 1); }

int64_t ResultPhases::most_met_taps() const {
  // The first tap that any result meets.
  const int64_t first = Congruence(axis_.filter_dilation, solve_output_.common).first(axis_.pad_lo);
  if (first == kNone || first >= axis_.taps) return 1;
  return divide_up(axis_.taps - first, r_step());
}

// Calls visit(phase, its first tap, length) for runs of `length` phases in which each phase's first tap is
// one before that of the phase before and leads to the same source.
template <typename Visit>
void ResultPhases::for_each_run(const Visit& visit) const {
  const int64_t count = this->count(), dilation = axis_.input_dilation, classes = this->classes();
  if (dilation == 1 || (axis_.filter_dilation == axis_.stride && solve_tap_.common == 1)) {
    // First taps descend one by one from phase to phase, and after 0 comes input_dilation - 1; their source
    // stays the same.
    for (int64_t phase = 0; phase < count;) {
      const int64_t first = first_tap(phase);
      if (first >= classes) {
        phase += first - (classes - 1);
        continue;
      }
      const int64_t length = std::min(first + 1, count - phase);
      visit(phase, first, length);
      phase += length;
    }
    return;
  }
  const int64_t move = axis_.stride % dilation;
  int64_t rest = remainder_of(axis_.pad_lo, dilation);
  if (classes * 16 < count) {
    // There are far fewer classes of taps than phases, so go from the taps to the phases.
    const Congruence phases(axis_.stride, dilation);
    std::vector<std::pair<int64_t, int64_t>> tied;
    for (int64_t first = 0; first < classes; ++first) {
      const int64_t phase = phases.first(axis_.pad_lo - first * axis_.filter_dilation);
      if (phase != kNone && phase < count) tied.emplace_back(phase, first);
    }
    std::sort(tied.begin(), tied.end());
    for (const auto& [phase, first] : tied) visit(phase, first, 1);
    return;
  }
  for (int64_t phase = 0; phase < count; ++phase) {
    const int64_t first = solve_tap_.first(rest);
    if (first != kNone && first < classes) visit(phase, first, 1);
    rest -= move;
    if (rest < 0) rest += dilation;
  }
}

std::vector<Region> ResultPhases::tied() const {
  std::vector<Region> found;
  int64_t classes = 0;
  const int64_t longer = axis_.taps % r_step(), more = axis_.output % o_step();
  const auto add = [&](int64_t phase, int64_t length) {
    Region region = (*this)[phase];
    region.phases = length;
    region.first_class = classes;
    region.tap_first = 0;
    classes += length;
    if (!found.empty()) {
      Region& last = found.back();
      if (last.result_first + last.phases == phase && last.count == region.count &&
          last.taps == region.taps && last.source_first == region.source_first) {
        last.phases += length;
        return;
      }
    }
    found.push_back(region);
  };
  // Cuts where later phases have one result or one tap more or less.
  const auto add_cut = [&](int64_t phase, int64_t length) {
    const int64_t before = std::clamp<int64_t>(more - phase, 0, length);
    if (before > 0) add(phase, before);
    if (before < length) add(phase + before, length - before);
  };
  for_each_run([&](int64_t phase, int64_t first, int64_t length) {
    const int64_t shorter = std::clamp<int64_t>(first - longer + 1, 0, length);
    if (shorter > 0) add_cut(phase, shorter);
    if (shorter < length) add_cut(phase + shorter, length - shorter);
  });
  return found;
}

std::vector<int64_t> ResultPhases::first_taps() const {
  std::vector<int64_t> found;
  for_each_run([&](int64_t, int64_t first, int64_t length) {
    for (int64_t at = 0; at < length; ++at) found.push_back(first - at);
  });
  return found;
}

Region region_of_one(const Axis& axis, const Region& phase, int64_t j) {
  // The taps with 0 <= at + tap_source_step * t < input are on the source.
  const int64_t at = phase.source_first + phase.source_step * j;
  const int64_t first = std::clamp<int64_t>(divide_up(-at, phase.tap_source_step), 0, phase.taps);
  const int64_t last =
      std::clamp<int64_t>(divide_up(axis.input - at, phase.tap_source_step), first, phase.taps);
  Region found = phase;
  found.result_first = phase.result_first + phase.result_step * j;
  found.count = 1;
  found.source_first = at + phase.tap_source_step * first;
  found.tap_first = phase.tap_first + first;
  found.taps = last - first;
  return found;
}

void add_regions(const Axis& axis, const Region& phase, std::vector<Region>& found) {
  if (phase.taps == 0) {
    found.push_back(phase);
    return;
  }
  for (int64_t j = 0; j < phase.count;) {
    Region region = region_of_one(axis, phase, j);
    // The taps stay the same until the tap before the first comes in, or the last tap (if there is none: the
    // first) goes out. Tap t comes in at the first j with source_first + source_step * j + tap_source_step *
    // t >= 0 and goes out at the first j past the input.
    const int64_t first = region.tap_first - phase.tap_first, last = first + region.taps;
    int64_t end = phase.count;
    const auto change_at = [&](int64_t bound, int64_t t) {
      const int64_t change =
          divide_up(bound - phase.source_first - phase.tap_source_step * t, phase.source_step);
      if (change > j) end = std::min(end, change);
    };
    if (first > 0) change_at(0, first - 1);
    if (last > first) change_at(axis.input, last - 1);
    region.count = end - j;
    found.push_back(region);
    j = end;
  }
}

std::vector<Region> regions(const Axis& axis) {
  std::vector<Region> found;
  const ResultPhases phases(axis);
  for (int64_t phase = 0; phase < phases.count(); ++phase) add_regions(axis, phases[phase], found);
  return found;
}

TapBounds tap_bounds(const Axis& axis, int64_t begin, int64_t end) {
  // For r in the bounds, -pad_lo + o * stride + r * filter_dilation may lie on the input for an o in [begin,
  // end).
  const int64_t least = axis.pad_lo - (end - 1) * axis.stride,
                most = (axis.input - 1) * axis.input_dilation + axis.pad_lo - begin * axis.stride;
  const int64_t first = std::clamp<int64_t>(divide_up(least, axis.filter_dilation), 0, axis.taps);
  return {first, std::clamp<int64_t>(divide_down(most, axis.filter_dilation) + 1, first, axis.taps)};
}

int64_t packed_place(const Axis& axis, int64_t r) {
  const int64_t step = tap_step(axis);
  return packed_before(axis, step, r % step) + r / step;
}

}  // namespace convgrad::cpu
