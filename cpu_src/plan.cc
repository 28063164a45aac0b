#include "cpu_src/plan.h"

#include <algorithm>
#include <initializer_list>
#include <numeric>
#include <stdexcept>
#include <string>

#include "common_src/integers.h"
#include "common_src/major.h"
#include "cpu_src/depthwise/plan.h"
#include "cpu_src/grouped/plan.h"
#include "cpu_src/met_taps.h"
#include "cpu_src/plan_costs.h"
#include "cpu_src/planar/planar.h"
#include "cpu_src/tiled/activation_plan.h"
#include "cpu_src/tiled/filter_plan.h"
#include "cpu_src/winograd/plan.h"

namespace convgrad::cpu {
namespace {

bool has_few_results(Op op, const ConvProblem& problem) {
  const ConvProblem seen = op == Op::kDgrad ? problem.transpose() : problem;
  // Adding a result's lanes pays only with enough terms.
  int64_t terms = seen.group_in();
  for (const Axis& axis : seen.axis)
    terms *= divide_up(axis.taps, axis.input_dilation / std::gcd(axis.filter_dilation, axis.input_dilation));
  const int64_t lanes = widest_lanes(seen.dtype), results = seen.group_out();
  return results <= lanes / 4 && seen.group_in() >= lanes && terms >= lanes * results;
}

// A large stride can leave many phases of few channels side by side; together they fill the lanes.
bool fills_lanes_with_phases(Op op, const ConvProblem& problem) {
  constexpr int64_t kManyPhases = 32;
  const ConvProblem seen = op == Op::kDgrad ? problem.transpose() : problem;
  return merges_phases(seen, LanesAre::kResults) && ResultPhases(seen.axis[2]).o_step() >= kManyPhases;
}

bool sums_along_lanes(Op op, const ConvProblem& problem) {
  return has_few_results(op, problem) && !fills_lanes_with_phases(op, problem);
}

// Reports whether most of a row that a small-group kernel buffers would lie between the windows.
bool leaves_most_between_windows(Op op, const ConvProblem& problem) {
  const ConvProblem seen = op == Op::kDgrad ? problem.transpose() : problem;
  return std::any_of(std::begin(seen.axis), std::end(seen.axis), [op](const Axis& axis) {
    const int64_t window = (axis.taps - 1) * axis.filter_dilation / axis.input_dilation + 1;
    // The same for wgrad's rows of dy, which lie between inputs.
    if (op == Op::kWgrad && axis.input_dilation / axis.stride > 12) return true;
    return axis.stride / axis.input_dilation > 8 + 4 * window;
  });
}

// Groups larger than half a vector fill one by themselves, and the tiled kernel feeds it without a copy of
// the sources.
bool takes_grouped(Op op, const ConvProblem& problem) {
  if (!grouped_serves(problem) || 2 * problem.group_out() > widest_lanes(problem.dtype) ||
      2 * problem.group_in() > widest_lanes(problem.dtype) || leaves_most_between_windows(op, problem))
    return false;
  return op == Op::kWgrad || !has_few_results(op, problem);
}

Plan plan_without_pairs(Op op, const ConvProblem& problem) {
  const ConvProblem seen = op == Op::kDgrad ? problem.transpose() : problem;
  if (op != Op::kWgrad && planar_pays(seen)) return {Kernel::kPlanar, "few channels: pixels in the lanes"};
  if (depthwise_pays(op, problem)) return {Kernel::kDepthwise, "one channel a group: read where it lies"};
  if (takes_grouped(op, problem))
    return {Kernel::kGrouped, "several groups side by side in a vector's lanes"};
  if (op == Op::kWgrad) return {Kernel::kTiled, "an outer product of channels at every position"};
  if (sums_along_lanes(op, problem))
    return {Kernel::kDot, "few channels in the result and many that are summed over"};
  // Each position repays a little of the copying; a filter larger than the caches costs more.
  const int64_t positions = problem.batch * problem.inputs();
  const int64_t filter_bytes =
      problem.taps() * problem.group_in() * problem.out_channels * bytes_of(problem.dtype);
  // Numbers of 16 bits are converted for each position again, and copied once.
  const bool two_bytes = bytes_of(problem.dtype) == 2;
  const int64_t few = filter_bytes > (4 << 20)     ? (two_bytes ? 64 : 512)
                      : filter_bytes > (512 << 10) ? 32
                                                   : 16;
  if (op == Op::kDgrad && positions < few && problem.group_out() >= 4 * widest_lanes(problem.dtype))
    return {Kernel::kDot, "too few positions to repay a transposed copy of the filter"};
  return {Kernel::kTiled, "pixels times channels in registers"};
}

// `automatic` holds the names that leave the kernel to the plan.
Request request_named(std::string_view name, std::initializer_list<const char*> automatic) {
  const size_t dot = name.find('.');
  const std::string_view kernel = name.substr(0, dot);
  const Isa isa = isa_named(dot == std::string_view::npos ? std::string_view() : name.substr(dot + 1));
  std::string known;
  for (const char* each : automatic) {
    if (kernel == each) return {Kernel::kAuto, isa};
    known += std::string(known.empty() ? "\"" : ", \"") + each + "\"";
  }
  for (const Kernel each : kKernels) {
    if (kernel == kernel_name(each)) return {each, isa};
    known += std::string(", \"") + kernel_name(each) + "\"";
  }
  throw std::invalid_argument("jax_convgrad: kernel is \"" + std::string(kernel) + "\", the CPU has " +
                              known);
}

}  // namespace

Request request_named(std::string_view name) { return request_named(name, {"auto"}); }

Request pool_request_named(std::string_view name) { return request_named(name, {"auto", "vector"}); }

const char* kernel_name(Kernel kernel) {
  switch (kernel) {
    case Kernel::kReference:
      return "reference";
    case Kernel::kTiled:
      return "tiled";
    case Kernel::kWinograd:
      return "winograd";
    case Kernel::kDot:
      return "dot";
    case Kernel::kGrouped:
      return "grouped";
    case Kernel::kDepthwise:
      return "depthwise";
    case Kernel::kPlanar:
      return "planar";
    case Kernel::kPairs:
      return "pairs";
    case Kernel::kAuto:
      break;
  }
  return "auto";
}

Plan plan(Op op, const ConvProblem& problem, Request request) {
  const ConvProblem seen = op == Op::kDgrad ? problem.transpose() : problem;
  if (request.kernel != Kernel::kAuto) {
    if (op == Op::kWgrad && request.kernel == Kernel::kDot)
      throw std::invalid_argument("jax_convgrad: the kernel \"dot\" serves fprop and dgrad, not wgrad");
    if (request.kernel == Kernel::kWinograd && !winograd_serves(op, problem))
      throw std::invalid_argument(
          "jax_convgrad: the kernel \"winograd\" serves float32, bfloat16 and float16, and filters with an "
          "axis of 3 taps without stride or input dilation");
    if (request.kernel == Kernel::kPlanar && (op == Op::kWgrad || !planar_serves(seen)))
      throw std::invalid_argument(
          "jax_convgrad: the kernel \"planar\" serves fprop and dgrad of taps along the last axis, at most "
          "256 pixels apart and without stride or input dilation, and of at most 8 channels in and out");
    if (request.kernel == Kernel::kDepthwise && !depthwise_serves(problem))
      throw std::invalid_argument(
          "jax_convgrad: the kernel \"depthwise\" serves several groups of one channel, in and out, and at "
          "most 256 taps");
    if (request.kernel == Kernel::kGrouped && !grouped_serves(problem))
      throw std::invalid_argument(
          "jax_convgrad: the kernel \"grouped\" serves several groups of at most 16 channels (8 in float64), "
          "in and out, and taps whose rows of the input fit into a core's cache");
    return {request.kernel, "asked for"};
  }
  if (request.below_highest && winograd_pays(op, problem, request.isa))
    return {Kernel::kWinograd, "3 taps and many channels: fewer products"};
  const Plan other = plan_without_pairs(op, problem);
  if (pairs_are_quicker(other.kernel, op, problem))
    return {Kernel::kPairs, "too few products to repay copies, tiles and boxes"};
  return other;
}

int64_t conv_workspace_bytes(Op op, const ConvProblem& problem, Request request) {
  // The problem that the kernel finally gets: with fewer taps the packed filter may have another layout, and
  // a larger one.
  const ConvProblem met = met_taps(problem).problem;
  const auto filter_bytes = [&](LanesAre lanes_are) {
    return op == Op::kFprop ? packed_filter_bytes(met, Major::kMN, lanes_are)
                            : packed_filter_bytes(met.transpose(), Major::kK, lanes_are);
  };
  const Kernel kernel = plan(op, problem, request).kernel;
  if (op == Op::kWgrad) {
    const auto bytes = [&](Kernel of) {
      if (of == Kernel::kGrouped) return grouped_wgrad_bytes(met);
      if (of == Kernel::kWinograd) return winograd_partial_bytes(met);
      if (of == Kernel::kDepthwise) return depthwise_wgrad_bytes(met);
      return of == Kernel::kTiled ? partial_filter_bytes(met) : 0;
    };
    // Dot products of bf16 pairs leave less to "winograd", and every instruction set has the same workspace.
    const auto bytes_on = [&](Isa isa) {
      return bytes(plan(op, problem, {request.kernel, isa, request.below_highest}).kernel);
    };
    return std::max(bytes_on(Isa::kPlain), bytes_on(Isa::kAvx512Bf16));
  }
  // The batch may not be known yet, but "auto" chooses "pairs" by the number of products, and "dot" (which
  // then needs no workspace) by the number of positions. So it gets the workspace that it would need without
  // these two.
  const bool any = request.kernel == Kernel::kAuto;
  const auto transformed_bytes = [&] {
    return winograd_filter_bytes(op == Op::kFprop ? met : met.transpose());
  };
  if (kernel == Kernel::kWinograd && !any) return transformed_bytes();
  // Likewise, "winograd" is chosen only if there are enough tiles.
  const int64_t transformed =
      request.below_highest && winograd_pays_for_some_batch(op, problem) ? transformed_bytes() : 0;
  if (any && depthwise_pays(op, problem)) return 0;
  if (any ? takes_grouped(op, problem) : kernel == Kernel::kGrouped)
    return std::max(transformed, op == Op::kFprop ? grouped_filter_bytes(met, Major::kMN)
                                                  : grouped_filter_bytes(met.transpose(), Major::kK));
  if (!any && (kernel == Kernel::kReference || kernel == Kernel::kDepthwise || kernel == Kernel::kPlanar ||
               kernel == Kernel::kPairs))
    return 0;
  const bool dot = any ? sums_along_lanes(op, problem) : kernel == Kernel::kDot;
  return std::max(transformed, filter_bytes(dot ? LanesAre::kSources : LanesAre::kResults));
}

int64_t bgrad_rows_per_task(const BiasProblem& problem) {
  // At least 2^16 numbers per task, which take about 20 microseconds, and at most 64 tasks, so that partial
  // sums stay small compared with dy.
  const int64_t least = divide_up(1 << 16, std::max<int64_t>(problem.channels, 1));
  return divide_up(std::max<int64_t>(divide_up(problem.rows, 64), least), 64) * 64;
}

int64_t bgrad_tasks(const BiasProblem& problem) {
  return std::max<int64_t>(divide_up(problem.rows, bgrad_rows_per_task(problem)), 1);
}

int64_t bgrad_workspace_bytes(const BiasProblem& problem) {
  const int64_t sum_bytes = std::max<int64_t>(bytes_of(problem.dtype), 4);
  return bgrad_tasks(problem) * problem.channels * sum_bytes;
}

int64_t wgrad_channels_per_task(const ConvProblem& problem) {
  // A tile of about 4096 sums stays in the first-level cache together with the rows that it reads. If that
  // gives few tasks (1x1 filters), channels are split further, so that there is work for many threads.
  constexpr int64_t kSums = 4096, kTasks = 16;
  const int64_t tiles = std::max<int64_t>(problem.taps() * problem.groups, 1);
  const int64_t for_cache = kSums / std::max<int64_t>(problem.group_out(), 1);
  const int64_t for_tasks = divide_up(problem.group_in(), divide_up(kTasks, tiles));
  return std::max<int64_t>(std::min({for_cache, for_tasks, problem.group_in()}), 1);
}

}  // namespace convgrad::cpu
