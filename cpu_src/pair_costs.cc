#include "cpu_src/pair_costs.h"

#include <algorithm>
#include <numeric>

#include "cpu_src/pair_lists.h"

namespace convgrad::cpu {
namespace {

// Estimates in nanoseconds of one thread on a machine of today with 16 lanes. What is compared differs by
// factors of tens where the choice matters; about as long as each other, either will do.
constexpr double kLanes = 16;

double vectors(double numbers) {
  return static_cast<double>(static_cast<int64_t>((numbers + kLanes - 1) / kLanes));
}

double d(int64_t number) { return static_cast<double>(number); }

// What every kernel has to do.
struct Counts {
  double pairs = 1;    // of all images
  double results = 1;  // positions that have any, and of fprop and dgrad of all images
  double longest = 1;  // pairs of a run (pair_lists.h)
  double listed = 0;   // positions that the lists are made from
  bool neighbours;     // whether a result's pairs lie side by side along the innermost axis
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

double time_of_pairs(Op op, const ConvProblem& p, const Counts& n) {
  constexpr double kListed = 12, kResult = 30, kNumber = 0.9, kNumberOfRow = 0.15, kRun = 10, kGroup = 6,
                   kVector = 1, kFold = 10;
  const double channels = n.group_in * n.group_out;
  double of_pair = 0, of_result = kResult + n.numbers * (n.group_out < kLanes ? kNumber : kNumberOfRow),
         of_run = kRun;
  if (channels == 1 || (n.groups == 1 && (n.group_in == 1 || n.group_out == 1))) {
    const double numbers = std::max(channels, n.groups);
    const bool backwards = op == Op::kDgrad && n.group_in > 1;
    of_pair = n.neighbours && !backwards && n.longest >= kLongRun ? numbers / kLanes : vectors(numbers);
  } else {
    const bool side_by_side = n.groups == 1 && 2 * n.group_out <= kLanes;
    if (op == Op::kFprop || !side_by_side)
      of_pair = n.groups * n.group_in * vectors(n.group_out);
    else
      of_pair = vectors(channels);
    of_run += n.groups > 1 ? n.groups * kGroup : 0;
  }
  if (op == Op::kDgrad && n.group_out > 1)
    of_result += kFold * n.groups * (2 * n.group_out <= kLanes ? vectors(channels) : n.group_in);
  double slower = bytes_of(p.dtype) == 2 ? 2 : 1;  // to widen
  // Every tap reads all activations again.
  constexpr double kCache = 4 << 20, kFar = 2.5;
  const double read = d(p.batch) * (d(p.inputs()) * d(p.in_channels) + d(p.outputs()) * d(p.out_channels)) *
                      static_cast<double>(bytes_of(p.dtype));
  if (op == Op::kWgrad && n.results > 1 && read > kCache) slower *= kFar;
  return n.listed * kListed + n.results * of_result + n.pairs / n.longest * of_run +
         n.pairs * of_pair * kVector * slower;
}

// Results of fprop along an axis that have taps of their own, each a box by itself; the others are few boxes.
double boxes_of(const Axis& axis) {
  const auto divide_up = [](int64_t a, int64_t b) { return (a + b - 1) / b; };
  const int64_t window = (axis.taps - 1) * axis.filter_dilation + 1,
                span = (axis.input - 1) * axis.input_dilation + 1,
                past = (axis.output - 1) * axis.stride + window - axis.pad_lo - span;
  int64_t border = axis.output;
  if (window <= span) {
    border = divide_up(std::max<int64_t>(axis.pad_lo, 0), axis.stride) +
             divide_up(std::max<int64_t>(past, 0), axis.stride);
  }
  const double phases = d(axis.input_dilation / std::gcd(axis.stride, axis.input_dilation));
  // Of a phase every tap begins and ends to be met once.
  const int64_t taps =
      divide_up(axis.taps, axis.input_dilation / std::gcd(axis.filter_dilation, axis.input_dilation));
  return std::max(std::min({most_pairs(axis), phases + d(border), phases * d(2 * taps + 1), d(axis.output)}),
                  1.0);
}

double time_of_others(Op op, const ConvProblem& p, const Counts& n) {
  constexpr double kProduct = 0.25, kPacked = 0.7, kBox = 150, kSegment = 4, kUnit = 40, kLine = 10,
                   kStagedLine = 40, kStaged = 2, kRow = 0.05;
  constexpr int64_t kRunPositions = 256, kTileChannels = 8, kPanelChannels = 64, kJoined = 8;
  double grouped = 0;  // rows that small groups are spread to, with all that lies between the windows
  const bool small_groups = p.groups > 1 && n.group_in <= kLanes / 2 && n.group_out <= kLanes / 2;
  const double products = n.pairs * n.group_in * kProduct *
                          (small_groups ? vectors(d(p.out_channels)) : n.groups * vectors(n.group_out));
  if (small_groups) {
    grouped = d(p.batch) *
              (d(p.inputs()) * vectors(d(p.in_channels)) + d(p.outputs()) * vectors(d(p.out_channels)));
  }
  if (op == Op::kWgrad) {
    const Axis& inner = p.axis[2];
    const double positions = d(p.batch) * d(p.outputs()), taps = d(p.taps());
    const double lines = d(p.batch * p.axis[0].output * p.axis[1].output),
                 blocks = std::max(positions / kRunPositions, 1.0);
    const bool joined =
        n.group_in < kJoined && inner.taps > 1 && inner.filter_dilation == 1 && inner.input_dilation == 1;
    const bool staged = joined || bytes_of(p.dtype) == 2;
    const double units = (joined ? taps / d(inner.taps) : taps) *
                         (small_groups ? vectors(d(p.out_channels))
                                       : n.groups * std::max(n.group_in / kTileChannels, 1.0) *
                                             std::max(n.group_out / kPanelChannels, 1.0));
    double time = units * std::max(blocks * kUnit, lines * (staged ? kStagedLine : kLine));
    // Joined taps multiply the padding, too.
    if (joined) time += positions * taps * n.group_in * vectors(n.group_out) * kProduct;
    const double staged_dy = small_groups ? 0 : positions * n.groups * vectors(n.group_out) * kStaged;
    // Sums are kept in tiles, written, and read again where positions are split.
    constexpr double kSum = 0.35;
    return time + staged_dy + products + grouped + n.results * n.numbers * kSum;
  }
  const ConvProblem seen = op == Op::kDgrad ? p.transpose() : p;
  double boxes = 1;
  for (const Axis& axis : seen.axis) boxes *= boxes_of(axis);
  return d(p.taps()) * n.group_in * d(p.out_channels) * kPacked + boxes * kBox +
         n.pairs / std::max(n.results, 1.0) * boxes * kSegment + products + n.results * n.numbers * kRow +
         grouped;
}

}  // namespace

bool pairs_are_quicker(Op op, const ConvProblem& p) {
  constexpr double kClearly = 0.85;
  const Counts counts(op, p);
  return time_of_pairs(op, p, counts) < kClearly * time_of_others(op, p, counts);
}

}  // namespace convgrad::cpu
