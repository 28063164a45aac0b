#include "cpu_src/regions.h"

#include <algorithm>
#include <numeric>

namespace convgrad::cpu {
namespace {

int64_t divide_down(int64_t a, int64_t b) { return a / b - (a % b != 0 && (a < 0) != (b < 0)); }
int64_t divide_up(int64_t a, int64_t b) { return -divide_down(-a, b); }

int64_t tap_step(const Axis& axis) {
  return axis.input_dilation / std::gcd(axis.filter_dilation, axis.input_dilation);
}

// The taps that a phase's results meet if the source had no ends: `count` of them from r = `first` on, every
// tap_step-th.
struct TapClass {
  int64_t first = 0, count = 0;
};

TapClass taps_of_phase(const Axis& axis, int64_t phase) {
  const int64_t step = tap_step(axis);
  for (int64_t r = 0; r < std::min(step, axis.taps); ++r) {
    if ((phase * axis.stride + r * axis.filter_dilation - axis.pad_lo) % axis.input_dilation == 0)
      return {r, divide_up(axis.taps - r, step)};
  }
  return {};
}

// How many taps come before the class that begins with tap `first`, in packed order.
int64_t packed_before(const Axis& axis, int64_t first) {
  const int64_t step = tap_step(axis);
  int64_t before = 0;
  for (int64_t r = 0; r < first; ++r) before += divide_up(axis.taps - r, step);
  return before;
}

}  // namespace

std::vector<int64_t> packed_taps(const Axis& axis) {
  const int64_t step = tap_step(axis);
  std::vector<int64_t> order;
  for (int64_t first = 0; first < std::min(step, axis.taps); ++first) {
    for (int64_t r = first; r < axis.taps; r += step) order.push_back(r);
  }
  return order;
}

std::vector<Region> phases(const Axis& axis) {
  const int64_t common = std::gcd(axis.stride, axis.input_dilation);
  const int64_t result_step = axis.input_dilation / common, source_step = axis.stride / common;
  const int64_t tap_source_step = axis.filter_dilation * tap_step(axis) / axis.input_dilation;
  std::vector<Region> found;
  for (int64_t phase = 0; phase < std::min(result_step, axis.output); ++phase) {
    const TapClass taps = taps_of_phase(axis, phase);
    Region region{phase,      result_step,    divide_up(axis.output - phase, result_step), 0, source_step, 0,
                  taps.count, tap_source_step};
    if (taps.count > 0) {
      // Source position of j = 0 and t = 0; the division leaves no remainder.
      region.source_first = divide_down(phase * axis.stride + taps.first * axis.filter_dilation - axis.pad_lo,
                                        axis.input_dilation);
      region.tap_first = packed_before(axis, taps.first);
    }
    found.push_back(region);
  }
  return found;
}

Region region_of_one(const Axis& axis, const Region& phase, int64_t j) {
  // On the source are the taps 0 <= at + tap_source_step * t < input.
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

std::vector<Region> regions(const Axis& axis) {
  std::vector<Region> found;
  for (const Region& phase : phases(axis)) {
    if (phase.taps == 0) {
      found.push_back(phase);
      continue;
    }
    for (int64_t j = 0; j < phase.count;) {
      Region region = region_of_one(axis, phase, j);
      // The taps stay the same until the one before the first comes in, or the last one (with none: the
      // first) goes out. A tap t comes in at the first j with source_first + source_step * j +
      // tap_source_step * t >= 0 and goes out at the first one past the input.
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
  return found;
}

bool is_trivial(const Axis& axis) {
  return axis.taps == 1 && axis.input == axis.output && axis.stride == 1 && axis.pad_lo == 0 &&
         axis.input_dilation == 1;
}

ConvProblem merge_trivial_axes(const ConvProblem& problem) {
  ConvProblem merged = problem;
  Axis* axis = merged.axis;
  for (int outer = 0; outer + 1 < kAxes; ++outer) {
    if (!is_trivial(axis[outer]) || !is_trivial(axis[outer + 1])) continue;
    axis[outer + 1].input = axis[outer + 1].output = axis[outer].input * axis[outer + 1].input;
    axis[outer] = Axis{};
  }
  // The batch joins the outermost axis that is longer than one position, if that is trivial.
  for (int outer = 0; outer < kAxes; ++outer) {
    if (is_trivial(axis[outer]) && axis[outer].input == 1 && outer + 1 < kAxes) continue;
    if (!is_trivial(axis[outer])) break;
    axis[outer].input = axis[outer].output = merged.batch * axis[outer].input;
    merged.batch = 1;
    break;
  }
  return merged;
}

}  // namespace convgrad::cpu
