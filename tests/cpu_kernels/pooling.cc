// Compares pooling and its gradients with the formulas of common_src/problem.h, output by output in float64.
#include <cstring>

#include "common_src/dispatch.h"
#include "cpu_src/kernels.h"
#include "tests/cpu_kernels/checks.h"
#include "tests/cpu_kernels/problems.h"

namespace convgrad::test {
namespace {

struct NamedPool {
  std::string name;
  PoolProblem problem;
};

std::vector<NamedPool> pool_problems() {
  std::vector<NamedPool> problems;
  const auto add = [&](const std::string& name, int64_t batch, int64_t channels, std::vector<Axis> axes) {
    for (const bool count_include_pad : {true, false}) {
      PoolProblem p;
      p.batch = p.operand_batch = p.position_batch = batch;
      p.channels = channels;
      p.count_include_pad = count_include_pad;
      std::copy(axes.begin(), axes.end(), p.axis + kAxes - axes.size());
      problems.push_back({name, p});
    }
  };
  for (const int64_t channels : {1, 3, 8, 16, 17, 33, 64, 70})
    add("2x2 stride 2, channels " + std::to_string(channels), 2, channels,
        {axis(6, 2, {2}), axis(8, 2, {2})});
  add("2x2 stride 2, one over", 2, 20, {axis(7, 2, {2}), axis(9, 2, {2})});
  add("3x3 stride 2", 2, 24, {axis(9, 3, {2, 1, 1}), axis(10, 3, {2, 1, 1})});
  add("3x3", 1, 18, {axis(6, 3, {1, 1, 1}), axis(7, 3, {1, 1, 1})});
  add("3x2 stride 1x3", 2, 5, {axis(6, 3, {1, 2, 2}), axis(11, 2, {3})});
  add("dilated", 1, 16, {axis(9, 3, {1, 2, 2, 1, 2}), axis(10, 2, {2, 0, 0, 1, 3})});
  add("cropped", 1, 9, {axis(9, 2, {2, -1, -2}), axis(8, 3, {1, -2, 0})});
  add("stride past the window", 1, 16, {axis(9, 2, {3}), axis(8, 1, {4})});
  add("padding past the window", 1, 16, {axis(3, 2, {1, 4, 3}), axis(4, 2, {1, 0, 5})});
  add("1d", 3, 21, {axis(40, 4, {3, 1, 2})});
  add("3d", 2, 10, {axis(4, 2, {2}), axis(5, 3, {2, 1, 1}), axis(6, 2, {2})});
  add("tasks", 4, 40, {axis(40, 3, {2, 1, 1}), axis(44, 3, {2, 1, 1})});
  add("no batch", 0, 16, {axis(4, 2, {2}), axis(4, 2, {2})});
  add("no channels", 2, 0, {axis(4, 2, {2}), axis(4, 2, {2})});
  add("no input", 2, 16, {axis(0, 2, {1, 1, 2}), axis(4, 2, {2})});
  add("no output", 2, 16, {axis(1, 2, {2}), axis(4, 2, {2})});
  return problems;
}

// Calls visit(output, input) for all that are tied, flat including image and channel; outputs, and inputs
// within a window, are in row-major order.
template <typename Visit>
void for_each_tied(const PoolProblem& p, Visit visit) {
  const Axis &a0 = p.axis[0], &a1 = p.axis[1], &a2 = p.axis[2];
  int64_t output = 0;
  for (int64_t n = 0; n < p.batch; ++n) {
    for (int64_t o0 = 0; o0 < a0.output; ++o0) {
      for (int64_t o1 = 0; o1 < a1.output; ++o1) {
        for (int64_t o2 = 0; o2 < a2.output; ++o2, ++output) {
          for (int64_t r = 0; r < p.taps(); ++r) {
            const int64_t i0 = a0.input_at(o0, r / (a1.taps * a2.taps)),
                          i1 = a1.input_at(o1, r / a2.taps % a1.taps), i2 = a2.input_at(o2, r % a2.taps);
            if (i0 == kNone || i1 == kNone || i2 == kNone) continue;
            visit(output, n, (i0 * a1.input + i1) * a2.input + i2);
          }
        }
      }
    }
  }
}

template <typename T>
class PoolCheck {
 public:
  PoolCheck(Report& report, std::string name, NamedChoice request, PoolProblem problem)
      : report_(report),
        name_(std::move(name)),
        choice_(std::move(request)),
        p_(problem),
        x_(p_.batch * p_.inputs() * p_.channels, 4),
        dy_(p_.batch * p_.outputs() * p_.channels, 5) {
    p_.dtype = kDType<T>;
    for (int64_t at = 0; at + 1 < x_.size(); at += 3) x_.data()[at + 1] = x_.data()[at / 2];  // makes ties
  }

  void max() {
    const int64_t C = p_.channels;
    std::vector<double> x = x_.doubles(), dy = dy_.doubles();
    Expected y = zeros(dy_.size()), dx = zeros(x_.size()), selected = zeros(dy_.size());
    dx.length = p_.taps();
    std::vector<int32_t> chosen(dy_.size(), -1);
    std::fill(y.exact.begin(), y.exact.end(), -std::numeric_limits<double>::infinity());
    for_each_tied(p_, [&](int64_t output, int64_t n, int64_t i) {
      for (int64_t c = 0; c < C; ++c) {
        const double candidate = x[(n * p_.inputs() + i) * C + c];
        if (!(candidate > y.exact[output * C + c])) continue;
        y.exact[output * C + c] = candidate;
        chosen[output * C + c] = static_cast<int32_t>(i);
      }
    });
    for (int64_t at = 0; at < dy_.size(); ++at) {
      if (chosen[at] < 0) continue;
      const int64_t from = (at / C / p_.outputs() * p_.inputs() + chosen[at]) * C + at % C;
      dx.exact[from] += dy[at];
      dx.sum_of_abs[from] += std::abs(dy[at]);
      selected.exact[at] = x[from];
    }

    Guarded<T> y_got(dy_.size()), y_alone(dy_.size()), dx_got(x_.size()), selected_got(dy_.size());
    Guarded<int32_t> position(dy_.size());
    for (const bool backwards : {false, true}) {
      run(cpu::max_pool(p_, choice_.request, x_.data(), y_got.data(), position.data()), backwards);
      expect_equal("max_pool", y_got, y.exact);
      if (!std::equal(chosen.begin(), chosen.end(), position.data()))
        report_.fail(what("max_pool"), "positions differ");
      report_.expect_intact(what("max_pool, positions"), position);
      run(cpu::max_pool(p_, choice_.request, x_.data(), y_alone.data(), nullptr), backwards);
      expect_equal("max_pool without positions", y_alone, y.exact);
      run(cpu::max_pool_grad(p_, choice_.request, dy_.data(), position.data(), dx_got.data()), backwards);
      expect_close("max_pool_grad", dx_got, dx);
      run(cpu::max_pool_select(p_, x_.data(), position.data(), selected_got.data()), backwards);
      expect_equal("max_pool_select", selected_got, selected.exact);
    }
  }

  void avg() {
    const int64_t C = p_.channels;
    std::vector<double> x = x_.doubles(), dy = dy_.doubles();
    std::vector<int64_t> on_input(p_.batch * p_.outputs());
    for_each_tied(p_, [&](int64_t output, int64_t, int64_t) { ++on_input[output]; });
    Expected y = zeros(dy_.size()), dx = zeros(x_.size());
    y.length = dx.length = p_.taps() + 1;
    for_each_tied(p_, [&](int64_t output, int64_t n, int64_t i) {
      const double count = static_cast<double>(p_.count_include_pad ? p_.taps() : on_input[output]);
      for (int64_t c = 0; c < C; ++c) {
        const int64_t from = (n * p_.inputs() + i) * C + c, to = output * C + c;
        y.exact[to] += x[from] / count;
        y.sum_of_abs[to] += std::abs(x[from]) / count;
        dx.exact[from] += dy[to] / count;
        dx.sum_of_abs[from] += std::abs(dy[to]) / count;
      }
    });
    if (!p_.count_include_pad) {  // the mean of no input is 0 / 0
      for (size_t output = 0; output < on_input.size(); ++output) {
        if (on_input[output] == 0) return;
      }
    }
    Guarded<T> y_got(dy_.size()), dx_got(x_.size());
    for (const bool backwards : {false, true}) {
      run(cpu::avg_pool(p_, choice_.request, x_.data(), y_got.data()), backwards);
      expect_close("avg_pool", y_got, y);
      run(cpu::avg_pool_grad(p_, choice_.request, dy_.data(), dx_got.data()), backwards);
      expect_close("avg_pool_grad", dx_got, dx);
    }
  }

 private:
  static Expected zeros(int64_t count) { return {std::vector<double>(count), std::vector<double>(count)}; }

  std::string what(const std::string& op) const {
    return op + " of \"" + name_ + "\", " + dtype_name(p_.dtype) + ", " + choice_.name;
  }

  void expect_close(const std::string& op, const Guarded<T>& actual, const Expected& expected) {
    report_.expect_close(what(op), actual, expected);
    report_.expect_intact(what(op), actual);
    report_.tried(op + " " + choice_.name);
  }

  void expect_equal(const std::string& op, const Guarded<T>& actual, const std::vector<double>& expected) {
    if (actual.doubles() != expected) report_.fail(what(op), "other numbers than were chosen");
    report_.expect_intact(what(op), actual);
    report_.tried(op + " " + choice_.name);
  }

  Report& report_;
  std::string name_;
  NamedChoice choice_;
  PoolProblem p_;
  Guarded<T> x_, dy_;
};

}  // namespace

void check_pooling(Report& report, const std::string& filter) {
  for (const auto& [name, problem] : pool_problems()) {
    if (name.find(filter) == std::string::npos) continue;
    for (const DType dtype : {DType::kF32, DType::kF64, DType::kBF16, DType::kF16}) {
      dispatch(dtype, [&, name = name, problem = problem](auto stored) {
        for (const NamedChoice& request : reference_and_vector()) {
          PoolCheck<typename decltype(stored)::type> check(report, name, request, problem);
          if (problem.count_include_pad) check.max();  // max pooling does not depend on it
          check.avg();
        }
      });
    }
  }
}

}  // namespace convgrad::test
