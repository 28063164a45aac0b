// The program's checks: each function tries its kernels on every problem whose name contains `filter`.
#pragma once

#include <string>
#include <vector>

#include "cpu_src/plan.h"
#include "cpu_src/work.h"
#include "tests/cpu_kernels/report.h"

namespace convgrad::test {

void check_convolutions(Report&, const std::string& filter);
void check_bf16_dots(Report&, const std::string& filter);
void check_relation(Report&, const std::string& filter);
void check_plan_costs(Report&, const std::string& filter);
void check_batch_norm(Report&, const std::string& filter);
void check_bgrad(Report&, const std::string& filter);
void check_pooling(Report&, const std::string& filter);

// Returns the kernels of pooling, bgrad and batch norm.
struct NamedChoice {
  std::string name;
  cpu::Request request;
};
inline std::vector<NamedChoice> reference_and_vector() {
  std::vector<NamedChoice> requests = {{"reference.plain", {cpu::Kernel::kReference, cpu::Isa::kPlain}}};
  for (const cpu::Isa isa : cpu::supported_isas()) {
    if (isa == cpu::Isa::kAvx512Bf16) continue;  // the same code as on AVX-512
    requests.push_back({std::string("vector.") + cpu::isa_name(isa), {cpu::Kernel::kAuto, isa}});
  }
  return requests;
}

// Runs all tasks. A stage's tasks may run in any order; `backwards` runs the last first.
inline void run(const cpu::Work& work, bool backwards) {
  for (const cpu::Stage& stage : work.stages) {
    for (int64_t task = 0; task < stage.tasks; ++task) stage.run(backwards ? stage.tasks - 1 - task : task);
  }
}

}  // namespace convgrad::test
