#include "cpu_src/plan_facts.h"

#include <algorithm>

#include "common_src/integers.h"
#include "common_src/major.h"
#include "cpu_src/depthwise/plan.h"
#include "cpu_src/grouped/plan.h"
#include "cpu_src/kernels.h"
#include "cpu_src/met_taps.h"
#include "cpu_src/microkernels/grouped_tile.h"
#include "cpu_src/tiled/activation_plan.h"
#include "cpu_src/tiled/filter_plan.h"
#include "cpu_src/winograd/plan.h"

namespace convgrad::cpu {
namespace {

// Returns the number of tasks of each stage; no task is run.
std::vector<int64_t> tasks_of(const Work& work) {
  std::vector<int64_t> tasks;
  for (const Stage& stage : work.stages) tasks.push_back(stage.tasks);
  return tasks;
}

Work work_of(Op op, const ConvProblem& problem, Request request) {
  if (op == Op::kFprop) return fprop(problem, request, nullptr, nullptr, {}, nullptr, nullptr);
  if (op == Op::kDgrad) return dgrad(problem, request, nullptr, nullptr, nullptr, nullptr);
  return wgrad(problem, request, nullptr, nullptr, nullptr, nullptr);
}

void add_activation_facts(const ActivationPlan& plan, Facts& facts) {
  facts.emplace_back("tile_pixels", plan.tile_pixels());
  facts.emplace_back("tile_channels", std::min(plan.panel_width(), plan.problem.group_out()));
  facts.emplace_back("lanes_along", plan.lanes_are == LanesAre::kSources ? "sources" : "results");
  facts.emplace_back("panels", plan.panels * plan.problem.groups);
  facts.emplace_back("packed", plan.packed);
  facts.emplace_back("boxes", plan.boxes());
}

void add_filter_facts(const FilterPlan& plan, Facts& facts) {
  facts.emplace_back("tile_rows", divide_up(plan.rows, plan.tiles));
  facts.emplace_back("tile_channels", std::min(plan.panel_width(), plan.problem.group_out()));
  facts.emplace_back("joined", plan.joined);
  facts.emplace_back("panels", plan.panels * plan.problem.groups);
  facts.emplace_back("partial_sums", plan.position_parts);
}

// A tile of "winograd" is what is transformed as one; a block is what is multiplied as one.
void add_winograd_facts(Op op, const ConvProblem& met, Isa isa, Facts& facts) {
  const auto add = [&facts](const auto& plan) {
    facts.emplace_back("tile_results", plan.tiles.results());
    facts.emplace_back("tile_products", plan.tiles.points());
    facts.emplace_back("tiles", plan.tiles.tiles());
    facts.emplace_back("block_tiles", plan.block_tiles);
  };
  if (op == Op::kWgrad) {
    const WinogradFilterPlan plan(met, isa);
    add(plan);
    facts.emplace_back("partial_sums", plan.parts);
    return;
  }
  const WinogradPlan plan(op == Op::kDgrad ? met.transpose() : met, op == Op::kDgrad ? Major::kK : Major::kMN,
                          isa);
  add(plan);
  facts.emplace_back("packed", plan.shared);
}

// Adds the tile of fprop and dgrad: the pixels of a row's longest tile, by one vector of channels.
void add_grouped_tile(const GroupedPlan& plan, Facts& facts) {
  int64_t longest = 0;
  for (int64_t strip = 0; strip < plan.strips; ++strip) {
    for (const StripPhase& phase : plan.phases_of(plan.strip(strip)))
      longest = std::max(longest, phase.last - phase.first);
  }
  const int64_t most = plan.problem.dtype == DType::kF64
                           ? CONVGRAD_FOR_ISA(plan.isa, grouped_tiles<double>()).most_pixels
                           : CONVGRAD_FOR_ISA(plan.isa, grouped_tiles<float>()).most_pixels;
  facts.emplace_back("tile_pixels", std::min(longest, most));
  facts.emplace_back("tile_channels", std::min<int64_t>(plan.lanes, plan.problem.out_channels));
}

void add_grouped_facts(const GroupedPlan& plan, Facts& facts) {
  facts.emplace_back("panels", plan.panels);
  facts.emplace_back("strips", plan.strips);
  facts.emplace_back("buffered_rows", plan.buffered_rows());
}

}  // namespace

Facts plan_facts(Op op, const ConvProblem& problem, Request request) {
  const Plan chosen = plan(op, problem, request);
  Facts facts = {{"kernel", kernel_name(chosen.kernel)}, {"reason", chosen.reason}};
  if (chosen.kernel != Kernel::kReference) facts.emplace_back("instruction_set", isa_name(request.isa));
  const ConvProblem met = met_taps(problem).problem;
  if (chosen.kernel == Kernel::kTiled || chosen.kernel == Kernel::kDot) {
    const LanesAre lanes_are = chosen.kernel == Kernel::kDot ? LanesAre::kSources : LanesAre::kResults;
    if (op == Op::kWgrad) {
      add_filter_facts(FilterPlan(met, request.isa), facts);
    } else if (op == Op::kDgrad) {
      add_activation_facts(ActivationPlan(met.transpose(), Major::kK, lanes_are, request.isa), facts);
    } else {
      add_activation_facts(ActivationPlan(met, Major::kMN, lanes_are, request.isa), facts);
    }
  }
  if (chosen.kernel == Kernel::kWinograd) add_winograd_facts(op, met, request.isa, facts);
  if (chosen.kernel == Kernel::kDepthwise && op == Op::kWgrad)
    facts.emplace_back("partial_sums", DepthwisePlan::wgrad_parts(met));
  if (chosen.kernel == Kernel::kGrouped) {
    const Major filter_major = op == Op::kDgrad ? Major::kK : Major::kMN;
    const ConvProblem seen = op == Op::kDgrad ? met.transpose() : met;
    const GroupedPlan grouped(seen, filter_major, request.isa);
    if (op != Op::kWgrad) add_grouped_tile(grouped, facts);
    add_grouped_facts(grouped, facts);
    if (op == Op::kWgrad) {
      facts.emplace_back("partial_sums", grouped_wgrad_parts(seen));
    } else {
      facts.emplace_back("packed", !grouped_reads_in_place(seen, filter_major));
    }
  }
  facts.emplace_back("tasks", tasks_of(work_of(op, problem, request)));
  facts.emplace_back("workspace_bytes", conv_workspace_bytes(op, problem, request));
  return facts;
}

Facts plan_facts(const BiasProblem& problem, Request request) {
  const bool reference = request.kernel == Kernel::kReference;
  Facts facts = {{"kernel", reference ? "reference" : "vector"},
                 {"reason", reference ? "asked for" : "rows of dy in whole vectors"}};
  if (!reference) facts.emplace_back("instruction_set", isa_name(request.isa));
  facts.emplace_back("partial_sums", bgrad_tasks(problem));
  facts.emplace_back("tasks", tasks_of(bgrad(problem, request, nullptr, nullptr, nullptr)));
  facts.emplace_back("workspace_bytes", bgrad_workspace_bytes(problem));
  return facts;
}

}  // namespace convgrad::cpu
