#include "cpu_src/plan_costs.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "common_src/integers.h"
#include "cpu_src/pairs/pair_lists.h"
#include "cpu_src/tiled/activation_plan.h"
#include "cpu_src/tiled/filter_plan.h"

namespace convgrad::cpu {
namespace {

// Estimates times in nanoseconds for two threads of a machine with 16 lanes. Every estimate is a sum of
// counts, each multiplied by the time of one. These factors were fitted to the times of some 5,000 problems
// drawn by benchmarks/stride_scan.py and of 600 usual depthwise layers. Half of the estimates are within a
// factor of 1.4 of the measured time (pairs: 1.2), nine in ten within 3.1 (pairs: 1.9).
constexpr double kLanes = 16, kCall = 15000;

double vectors(double numbers) {
  return static_cast<double>(static_cast<int64_t>((numbers + kLanes - 1) / kLanes));
}

double d(int64_t number) { return static_cast<double>(number); }

// The work that every kernel has to do.
struct Counts {
  double pairs = 1;    // of all images
  double results = 1;  // positions that have any pair; for fprop and dgrad of all images
  double longest = 1;  // pairs in a run (pair_lists.h)
  double listed = 0;   // positions that the lists are made from
  bool neighbours;     // a result's pairs are contiguous along the innermost axis
  double numbers;      // of a result's position
  double group_in, group_out, groups;

  Counts(Op op, const ConvProblem& p)
      : numbers(d(op == Op::kFprop   ? p.out_channels
                  : op == Op::kDgrad ? p.in_channels
                                     : p.group_in() * p.out_channels)),
        group_in(d(p.group_in())),
        group_out(d(p.group_out())),
        groups(d(p.groups)) {
    for (const Axis& axis : p.axis) {
      const double most = most_pairs(axis);
      const double positions = d(op == Op::kFprop ? axis.output : op == Op::kDgrad ? axis.input : axis.taps);
      const double met = std::min(positions, most);
      pairs *= most;
      results *= met;
      const double of_result = most / std::max(met, 1.0);
      longest = &axis == &p.axis[2] && of_result >= kLongRun ? of_result : std::max(longest, of_result);
      listed += std::min(positions, std::max(most, 1024.0));
    }
    pairs *= d(p.batch);
    const Axis& inner = p.axis[2];
    neighbours = op == Op::kFprop   ? inner.filter_dilation == inner.input_dilation
                 : op == Op::kDgrad ? inner.filter_dilation == inner.stride
                                    : inner.stride == inner.input_dilation;
    if (op != Op::kWgrad) results *= d(p.batch);
  }
};

double result_numbers(Op op, const ConvProblem& p) {
  if (op == Op::kWgrad) return d(p.taps()) * d(p.group_in()) * d(p.out_channels);
  return d(p.batch) *
         (op == Op::kFprop ? d(p.outputs()) * d(p.out_channels) : d(p.inputs()) * d(p.in_channels));
}

double time_of_pairs(Op op, const ConvProblem& p, const Counts& n) {
  constexpr double kListed = 10, kResult = 8, kRun = 6, kGroup = 5, kSideBySide = 0.65, kVector = 0.46,
                   kWidened = 0.2, kFar = 0.14, kFold = 10, kCleared = 0.01;
  const double channels = n.group_in * n.group_out;
  const bool in_lanes = channels == 1 || (n.groups == 1 && (n.group_in == 1 || n.group_out == 1)),
             few_out = n.groups == 1 && 2 * n.group_out <= kLanes;
  double vectors_of_pair = n.groups * n.group_in * vectors(n.group_out), of_vector = kVector,
         of_run = kRun + (in_lanes || n.groups == 1 ? 0 : n.groups * kGroup);
  if (in_lanes) {
    const double numbers = std::max(channels, n.groups);
    const bool backwards = op == Op::kDgrad && n.group_in > 1;
    const bool side_by_side = n.neighbours && !backwards && n.longest >= kLongRun;
    vectors_of_pair = side_by_side ? numbers / kLanes : vectors(numbers);
    if (side_by_side) of_vector = kSideBySide;
  } else if (op != Op::kFprop && few_out) {
    vectors_of_pair = vectors(channels);
  }
  if (bytes_of(p.dtype) == 2) of_vector += kWidened;
  // Every tap reads all activations again.
  constexpr double kCache = 4 << 20;
  const double read = d(p.batch) * (d(p.inputs()) * d(p.in_channels) + d(p.outputs()) * d(p.out_channels)) *
                      static_cast<double>(bytes_of(p.dtype));
  if (op == Op::kWgrad && n.results > 1 && read > kCache) of_vector += kFar;
  double of_result = kResult;
  if (op == Op::kDgrad && n.group_out > 1)
    of_result += kFold * n.groups * (few_out ? vectors(channels) : n.group_in);
  const double time = kCall + n.listed * kListed + n.results * of_result + n.pairs / n.longest * of_run +
                      n.pairs * vectors_of_pair * of_vector;
  const double all = result_numbers(op, p);
  // A single result is a single task, which leaves one of the two threads idle.
  return n.results < 2 ? 2 * time : n.results * n.numbers < all ? time + all * kCleared : time;
}

// Counts the results of fprop along an axis that have taps of their own, each a box of its own; the others
// are few boxes.
double boxes_of(const Axis& axis) {
  const int64_t window = (axis.taps - 1) * axis.filter_dilation + 1,
                span = (axis.input - 1) * axis.input_dilation + 1,
                past = (axis.output - 1) * axis.stride + window - axis.pad_lo - span;
  int64_t border = axis.output;
  if (window <= span) {
    border = divide_up(std::max<int64_t>(axis.pad_lo, 0), axis.stride) +
             divide_up(std::max<int64_t>(past, 0), axis.stride);
  }
  const double phases = d(axis.input_dilation / std::gcd(axis.stride, axis.input_dilation));
  // Within a phase the set of taps changes where a tap comes in or goes out, once each.
  const int64_t taps =
      divide_up(axis.taps, axis.input_dilation / std::gcd(axis.filter_dilation, axis.input_dilation));
  return std::max(std::min({most_pairs(axis), phases + d(border), phases * d(2 * taps + 1), d(axis.output)}),
                  1.0);
}

// Counts pairs, including the zeros of padding that are multiplied along the innermost axis.
double padded_pairs(const ConvProblem& seen, const Counts& n) {
  const Axis& axis = seen.axis[2];
  const int64_t apart = axis.input_dilation / std::gcd(axis.filter_dilation, axis.input_dilation);
  return n.pairs / std::max(most_pairs(axis), 1.0) * d(axis.output) * d(divide_up(axis.taps, apart));
}

double time_of_tiled_wgrad(const ConvProblem& p, const Counts& n) {
  constexpr double kBlock = 20, kLine = 1.9, kTap = 15, kProduct = 0.12, kOutput = 1.3, kInput = 0.07,
                   kSum = 0.01, kSwappedSum = 0.23, kStagedLine = 3.8, kWidenedLine = 14;
  constexpr double kBlockPositions = 256, kTileRows = 8, kPanelChannels = 64;
  const bool swapped = FilterPlan::swaps(p);
  const ConvProblem seen = swapped ? p.transpose() : p;
  const bool joined = FilterPlan::joins_taps(seen), two_bytes = bytes_of(p.dtype) == 2;
  const double group_in = d(seen.group_in()), group_out = d(seen.group_out());
  const double positions = d(seen.batch) * d(seen.outputs()), taps = d(seen.taps()),
               rows_of_taps = d(seen.axis[0].taps * seen.axis[1].taps);
  double lines = d(seen.batch * seen.axis[0].output * seen.axis[1].output), met_lines = lines,
         blocks = std::max(positions / kBlockPositions, 1.0), met_taps = rows_of_taps, rows = group_in,
         products = positions * taps * group_in * n.groups * vectors(group_out);
  if (joined) {  // joined taps multiply the padding, too
    rows *= d(seen.axis[2].taps);
  } else {
    // A tap visits only the blocks and lines where it meets anything.
    const double met = std::max(n.pairs / taps, 1.0);
    met_taps = std::min(taps, n.results);
    blocks = std::min(blocks, met);
    met_lines = std::min(lines, met);
    products = n.pairs * group_in * n.groups * vectors(group_out);
  }
  const double tiles = n.groups * std::max(rows / kTileRows, 1.0) * std::max(group_out / kPanelChannels, 1.0);
  double time = kCall + met_taps * tiles * (blocks * kBlock + met_lines * kLine) + products * kProduct +
                positions * n.groups * vectors(group_out) * kOutput +
                taps * n.numbers * (swapped ? kSwappedSum : kSum);
  if (joined || two_bytes) time += d(seen.batch) * d(seen.inputs()) * d(seen.in_channels) * kInput;
  if (!joined) time += taps * tiles * kTap;
  if (joined)
    time += lines * n.groups * rows_of_taps * kStagedLine;
  else if (two_bytes)
    time += lines * n.groups * kStagedLine + met_taps * n.groups * met_lines * kWidenedLine;
  return time;
}

double time_of_grouped_wgrad(const ConvProblem& p, const Counts& n) {
  constexpr double kSum = 10, kProduct = 0.257, kSpread = 0.7, kSpreadWidened = 0.16, kInput = 2,
                   kOutputVector = 1.4, kOutput = 2.3, kTap = 4.3, kLine = 44;
  const double lines = d(p.batch * p.axis[0].output * p.axis[1].output),
               of_output = vectors(d(p.out_channels)), inputs = d(p.batch * p.inputs());
  const double widened = bytes_of(p.dtype) == 2 ? kSpreadWidened : 0;
  return kCall + d(p.taps()) * of_output * kSum + padded_pairs(p, n) * n.group_in * of_output * kProduct +
         inputs * (kInput + vectors(d(p.in_channels)) * (kSpread + widened)) +
         d(p.batch * p.outputs()) * (kOutput + of_output * kOutputVector) +
         lines * (kLine + std::min(d(p.axis[2].taps), most_pairs(p.axis[2])) * kTap);
}

// For fprop, or dgrad as fprop of the transposed problem.
double time_of_grouped(const ConvProblem& seen, const Counts& n) {
  constexpr double kFilter = 0.8, kRow = 13, kProduct = 0.19, kSpread = 1.8, kSpreadWidened = 0.84,
                   kInput = 1.2, kOutputVector = 1.8, kOutput = 0.6, kPhaseOfStrip = 100, kTap = 3;
  constexpr double kStrip = 512;  // results, roughly
  const Axis& inner = seen.axis[2];
  const auto met = [](const Axis& axis) { return std::min(most_pairs(axis), d(axis.output)); };
  const double rows = d(seen.batch) * met(seen.axis[0]) * met(seen.axis[1]);
  const double phases =
      std::min(d(inner.output), d(inner.input_dilation / std::gcd(inner.stride, inner.input_dilation)));
  const double widened = bytes_of(seen.dtype) == 2 ? kSpreadWidened : 0,
               of_output = vectors(d(seen.out_channels));
  return kCall + d(seen.taps()) * d(seen.group_in()) * d(seen.out_channels) * kFilter +
         padded_pairs(seen, n) * d(seen.group_in()) * of_output * kProduct +
         d(seen.batch * seen.inputs()) * (kInput + vectors(d(seen.in_channels)) * (kSpread + widened)) +
         d(seen.batch * seen.outputs()) * (kOutput + of_output * kOutputVector) +
         rows *
             (kRow + phases * std::max(d(inner.output) / kStrip, 1.0) * kPhaseOfStrip + d(inner.taps) * kTap);
}

// Estimates the taps along an axis that are met, and so packed.
double packed_taps_of(const Axis& axis) { return std::max(d(tap_bounds(axis, 0, axis.output).count()), 1.0); }

double time_of_dot(Op op, const ConvProblem& seen, const Counts& n, double boxes) {
  constexpr double kPackedTap = 21, kBox = 52, kSegment = 5.2, kProduct = 0.12, kWidened = 0.115, kSum = 2.8,
                   kOutput = 0.013;
  const double of_product = kProduct + (bytes_of(seen.dtype) == 2 ? kWidened : 0);
  double packed = op == Op::kFprop ? n.groups : 0;
  for (const Axis& axis : seen.axis) packed *= packed_taps_of(axis);
  return kCall + packed * kPackedTap + boxes * (kBox + n.pairs / std::max(n.results, 1.0) * kSegment) +
         n.pairs * d(seen.group_out()) * vectors(d(seen.group_in())) * of_product +
         n.results * d(seen.out_channels) * kSum +
         d(seen.batch) * d(seen.outputs()) * d(seen.out_channels) * kOutput;
}

double time_of_planar(const ConvProblem& seen, const Counts& n) {
  constexpr double kProduct = 0.3, kWidened = 0.08, kOutput = 0.04, kInput = 0.02, kTap = 2.9, kRow = 130;
  const double rows = d(seen.batch * seen.axis[0].output * seen.axis[1].output),
               channels = d(seen.group_in()) * d(seen.out_channels);
  return kCall + n.pairs * channels / kLanes * (kProduct + (bytes_of(seen.dtype) == 2 ? kWidened : 0)) +
         d(seen.batch) * (d(seen.outputs()) * d(seen.out_channels) * kOutput +
                          d(seen.inputs()) * d(seen.in_channels) * kInput) +
         rows * (n.pairs / std::max(n.results, 1.0) * channels * kTap + kRow);
}

double time_of_tiled(const ConvProblem& seen, const Counts& n, double boxes) {
  constexpr double kFilter = 0.07, kPacked = 43, kMergedTap = 1.3, kBox = 46, kMergedBox = 104,
                   kSegment = 1.5, kWidenedSegment = 0.9, kProduct = 0.14, kWidened = 0.1, kOutput = 0.006,
                   kResult = 0.7;
  constexpr double kPackedSources = 64, kMergedNumbers = 32;
  const bool two_bytes = bytes_of(seen.dtype) == 2, merges = merges_phases(seen, LanesAre::kResults);
  const double group_in = d(seen.group_in()), group_out = d(seen.group_out());
  double products = n.pairs * group_in * n.groups * vectors(group_out),
         packed = packed_taps_of(seen.axis[0]) * packed_taps_of(seen.axis[1]);
  if (merges) {  // neighbouring phases are one box, and fill the lanes
    const double along = boxes_of(seen.axis[2]);
    boxes = boxes / along * std::max(along * group_out / kMergedNumbers, 1.0);
    products = n.pairs * group_in * group_out / kLanes;
    packed *= d(seen.axis[2].taps) * kMergedTap;
  } else {
    boxes *= n.groups;
    packed *= packed_taps_of(seen.axis[2]) * n.groups * std::ceil(group_in / kPackedSources) * kPacked;
  }
  return kCall + packed + d(seen.taps()) * group_in * d(seen.out_channels) * kFilter +
         boxes * ((merges ? kMergedBox : kBox) +
                  n.pairs / std::max(n.results, 1.0) * (kSegment + (two_bytes ? kWidenedSegment : 0))) +
         products * (kProduct + (two_bytes ? kWidened : 0)) +
         d(seen.batch) * d(seen.outputs()) * d(seen.out_channels) * kOutput +
         n.results * n.groups * vectors(group_out) * kResult;
}

double time_of(Kernel kernel, Op op, const ConvProblem& p, const Counts& n) {
  if (op == Op::kWgrad)
    return kernel == Kernel::kGrouped ? time_of_grouped_wgrad(p, n) : time_of_tiled_wgrad(p, n);
  const ConvProblem seen = op == Op::kDgrad ? p.transpose() : p;
  if (kernel == Kernel::kGrouped) return time_of_grouped(seen, n);
  if (kernel == Kernel::kPlanar) return time_of_planar(seen, n);
  double boxes = 1;
  for (const Axis& axis : seen.axis) boxes *= boxes_of(axis);
  return kernel == Kernel::kDot ? time_of_dot(op, seen, n, boxes) : time_of_tiled(seen, n, boxes);
}

}  // namespace

bool pairs_are_quicker(Kernel other, Op op, const ConvProblem& p) {
  constexpr double kOfGrouped = 0.6;  // of the time of "grouped", for usual layers
  // The other kernels are made for the layers of usual networks, and the estimates are worst for small
  // groups.
  constexpr int64_t kUsualStep = 8;
  const bool usual = std::all_of(std::begin(p.axis), std::end(p.axis), [](const Axis& axis) {
    return std::max({axis.stride, axis.input_dilation, axis.filter_dilation}) <= kUsualStep;
  });
  const bool small_groups = other == Kernel::kGrouped || other == Kernel::kDepthwise;
  const double clearly = usual && small_groups ? 0.45 : 0.85;
  const Counts counts(op, p);
  const double time_of_other = other == Kernel::kDepthwise
                                   ? kOfGrouped * time_of(Kernel::kGrouped, op, p, counts)
                                   : time_of(other, op, p, counts);
  return time_of_pairs(op, p, counts) < clearly * time_of_other;
}

}  // namespace convgrad::cpu
