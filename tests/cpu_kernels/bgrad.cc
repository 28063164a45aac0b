// Compares bgrad with a plain sum in float64.
#include "common_src/dispatch.h"
#include "cpu_src/kernels.h"
#include "tests/cpu_kernels/checks.h"

namespace convgrad::test {
namespace {

template <typename T>
void check(Report& report, int64_t rows, int64_t channels, const std::string& filter) {
  const BiasProblem problem{kDType<T>, rows, channels};
  const std::string what = "bgrad of " + std::to_string(rows) + " rows, " + std::to_string(channels) +
                           " channels, " + dtype_name(problem.dtype);
  if (what.find(filter) == std::string::npos) return;
  const Guarded<T> dy(rows * channels, 3);
  const std::vector<double> terms = dy.doubles();
  Expected expected{std::vector<double>(channels), std::vector<double>(channels), rows};
  for (int64_t row = 0; row < rows; ++row) {
    for (int64_t k = 0; k < channels; ++k) {
      expected.exact[k] += terms[row * channels + k];
      expected.sum_of_abs[k] += std::abs(terms[row * channels + k]);
    }
  }
  for (const auto& [name, request] : reference_and_vector()) {
    const std::string call = what + ", " + name;
    Guarded<T> db(channels), again(channels);
    for (Guarded<T>* to : {&db, &again}) {
      Guarded<unsigned char> workspace(cpu::bgrad_workspace_bytes(problem));
      run(cpu::bgrad(problem, request, dy.data(), to->data(), workspace.data()), to == &again);
      report.expect_intact(call, *to);
      report.expect_intact(call + ", workspace", workspace);
    }
    report.expect_close(call, db, expected);
    if (!(db == again)) report.fail(call, "other bits where tasks come in another order");
    report.tried("bgrad " + name);
  }
}

}  // namespace

void check_bgrad(Report& report, const std::string& filter) {
  for (const int64_t rows : {0, 1, 5, 255, 256, 257, 70000}) {
    for (const int64_t channels : {0, 1, 3, 15, 16, 17, 33, 64, 200}) {
      for (const DType dtype : {DType::kF32, DType::kF64, DType::kBF16, DType::kF16}) {
        dispatch(dtype, [&](auto stored) {
          check<typename decltype(stored)::type>(report, rows, channels, filter);
        });
      }
    }
  }
}

}  // namespace convgrad::test
