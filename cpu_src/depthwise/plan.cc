#include "cpu_src/depthwise/plan.h"

#include <algorithm>
#include <numeric>

#include "common_src/integers.h"

namespace convgrad::cpu {
namespace {

// More taps would need sums in runs, and lists of taps that leave the cache.
constexpr int64_t kMostDepthwiseTaps = 256;

// Returns so many tasks that each takes some 50 microseconds, by the multiply-adds of vectors.
int64_t depthwise_tasks(const ConvProblem& p, int64_t most) {
  const double vectors = static_cast<double>(divide_up(p.out_channels, widest_lanes(p.dtype))),
               steps = static_cast<double>(p.batch) * static_cast<double>(std::min(p.outputs(), p.inputs())) *
                       static_cast<double>(p.taps()) * vectors;
  constexpr double kStepsOfTask = 1 << 16;
  return static_cast<int64_t>(std::clamp(steps / kStepsOfTask, 1.0, static_cast<double>(most)));
}

}  // namespace

bool depthwise_serves(const ConvProblem& p) {
  return p.groups > 1 && p.group_in() == 1 && p.group_out() == 1 && p.taps() <= kMostDepthwiseTaps;
}

bool depthwise_pays(Op op, const ConvProblem& problem) {
  if (!depthwise_serves(problem)) return false;
  const ConvProblem seen = op == Op::kDgrad ? problem.transpose() : problem;
  const Axis& across = seen.axis[2];
  constexpr int64_t kUsualTaps = 64;  // the list of taps of every kind of result should stay short
  if (seen.taps() > kUsualTaps) return false;
  // Results at the ends of a row have other taps, and are computed one by one.
  if (across.output < 2 * (across.taps - 1) * across.filter_dilation) return false;
  if (op == Op::kWgrad) return true;
  // Widening 16-bit sources again for every tap takes longer than one copy.
  if (bytes_of(seen.dtype) == 2) return false;
  // A tile's sources should not share the few sets of the first-level cache that steps of a large power of
  // two lead to.
  constexpr int64_t kLine = 64, kSets = 64, kWays = 6, kTilePixels = 8;
  const int64_t step = seen.in_channels * bytes_of(seen.dtype),
                sets = kSets / std::gcd(std::max<int64_t>(step / kLine, 1), kSets);
  return (kTilePixels + across.taps - 1) * (seen.taps() / across.taps) <= kWays * sets;
}

DepthwisePlan::DepthwisePlan(const ConvProblem& p, Major filter_major, Isa isa)
    : problem(p), filter_major(filter_major), isa(isa) {
  for (int a = 0; a < kAxes; ++a) {
    regions_[a] = regions(p.axis[a]);
    packed_[a] = packed_taps(p.axis[a]);
  }
  for (int a = 0; a < 2; ++a) {
    positions_[a].resize(p.axis[a].output);
    for (size_t at = 0; at < regions_[a].size(); ++at) {
      const Region& region = regions_[a][at];
      for (int64_t j = 0; j < region.count; ++j)
        positions_[a][region.result_first + region.result_step * j] = {
            static_cast<int64_t>(at), region.source_first + region.source_step * j};
    }
  }
  for (const Region& r0 : regions_[0]) {
    for (const Region& r1 : regions_[1]) {
      for (const Region& r2 : regions_[2]) taps_.push_back(taps_of(r0, r1, r2));
    }
  }
}

std::vector<DepthwiseTap> DepthwisePlan::taps_of(const Region& r0, const Region& r1, const Region& r2) const {
  const int64_t C = problem.in_channels, row = problem.axis[2].input * C, plane = problem.axis[1].input * row;
  std::vector<DepthwiseTap> taps;
  for (int64_t t0 = 0; t0 < r0.taps; ++t0) {
    for (int64_t t1 = 0; t1 < r1.taps; ++t1) {
      for (int64_t t2 = 0; t2 < r2.taps; ++t2) {
        const int64_t tap =
            (packed_[0][r0.tap_first + t0] * problem.axis[1].taps + packed_[1][r1.tap_first + t1]) *
                problem.axis[2].taps +
            packed_[2][r2.tap_first + t2];
        taps.push_back(
            {t0 * r0.tap_source_step * plane + t1 * r1.tap_source_step * row + t2 * r2.tap_source_step * C,
             (filter_major == Major::kK ? problem.taps() - 1 - tap : tap) * C});
      }
    }
  }
  return taps;
}

DepthwisePlan::Row DepthwisePlan::row(int64_t index) const {
  const ConvProblem& p = problem;
  const int64_t o1 = index % p.axis[1].output, rest = index / p.axis[1].output, o0 = rest % p.axis[0].output,
                n = rest / p.axis[0].output;
  const Position &at0 = positions_[0][o0], &at1 = positions_[1][o1];
  return {
      ((n * p.axis[0].input + at0.source) * p.axis[1].input + at1.source) * p.axis[2].input * p.in_channels,
      index * p.axis[2].output * p.out_channels, at0.region, at1.region};
}

int DepthwisePlan::window_of(const Region& region) {
  if (region.source_step != region.tap_source_step) return -1;
  for (int window = 0; window < 3; ++window) {
    if (DepthwiseTiles<float>::kWindow[window] == region.taps) return window;
  }
  return -1;
}

int64_t DepthwisePlan::tasks() const { return depthwise_tasks(problem, std::min<int64_t>(rows(), 64)); }

int64_t DepthwisePlan::wgrad_parts(const ConvProblem& p) {
  // Partial sums take at most a twentieth of the activations' memory.
  const int64_t rows = p.batch * p.axis[0].output * p.axis[1].output;
  const int64_t room = p.batch * (p.inputs() + p.outputs()) * bytes_of(p.dtype) / bytes_of_sum(p.dtype) / 20 /
                       std::max<int64_t>(p.taps(), 1);
  return std::max<int64_t>(std::min(depthwise_tasks(p, std::min<int64_t>(rows, 32)), room), 1);
}

int64_t depthwise_wgrad_bytes(const ConvProblem& p) {
  const int64_t parts = DepthwisePlan::wgrad_parts(p);
  if (parts == 1 && bytes_of(p.result_dtype()) == bytes_of_sum(p.dtype)) return 0;
  return parts * p.taps() * p.out_channels * bytes_of_sum(p.dtype);
}

}  // namespace convgrad::cpu
