// Tests every CPU kernel, on every instruction set that this machine has, over many problems and all dtypes.
//
//     cpu_kernels [PART_OF_A_PROBLEM'S_NAME]
#include "cpu_src/isa.h"
#include "tests/cpu_kernels/checks.h"

int main(int count, char** arguments) {
  using namespace convgrad;
  std::printf("instruction sets:");
  for (const cpu::Isa isa : cpu::supported_isas()) std::printf(" %s", cpu::isa_name(isa));
  std::printf("\n");

  const std::string filter = count > 1 ? arguments[1] : "";
  test::Report report;
  test::check_convolutions(report, filter);
  test::check_bf16_dots(report, filter);
  test::check_relation(report, filter);
  test::check_plan_costs(report, filter);
  test::check_bgrad(report, filter);
  test::check_batch_norm(report, filter);
  test::check_pooling(report, filter);
  report.print();
  if (report.calls() == 0) report.fail(filter, "no problem is called so");
  std::printf("%lld calls, %lld failures\n", static_cast<long long>(report.calls()),
              static_cast<long long>(report.failures()));
  return report.failures() > 0;
}
