// Compares batch norm's passes with the formulas in float64.
#include "common_src/batch_norm.h"

#include "common_src/dispatch.h"
#include "cpu_src/batch_norm/plan.h"
#include "cpu_src/kernels.h"
#include "tests/cpu_kernels/checks.h"

namespace convgrad::test {
namespace {

// Numbers of which each channel has its own mean, up to `far` times the deviation.
template <typename T>
Guarded<T> activations(const NormProblem& p, double far) {
  Guarded<T> x(p.numbers(), 5);
  for (int64_t at = 0; at < x.size(); ++at) {
    const int64_t k = at % p.channels;
    const double mean = far * static_cast<double>(k % 3 - 1) + static_cast<double>(k % 2);
    x.data()[at] = narrow<T>(static_cast<Sum<T>>(static_cast<double>(widen(x.data()[at])) + mean));
  }
  return x;
}

// One of a group's vectors, and the numbers of a channel.
int64_t channel_of(const NormProblem& p, int64_t at) {
  return at / (p.rows * p.channels) * p.channels + at % p.channels;
}

template <typename T>
class BatchNormCheck {
 public:
  using S = Sum<T>;
  BatchNormCheck(Report& report, const NormProblem& p, double far, const std::string& what)
      : report_(report),
        p_(p),
        what_(what),
        channels_(p.groups * p.channels),
        x_(activations<T>(p, far)),
        dy_(p.numbers(), 6),
        exact_mean_(channels_),
        exact_var_(channels_) {
    const std::vector<double> x = x_.doubles();
    std::vector<long double> mean(channels_), var(channels_);
    for (int64_t at = 0; at < x_.size(); ++at)
      mean[channel_of(p, at)] += x[at] / static_cast<long double>(p.rows);
    for (int64_t at = 0; at < x_.size(); ++at) {
      const int64_t k = channel_of(p, at);
      var[k] += (x[at] - mean[k]) * (x[at] - mean[k]) / p.rows;
    }
    std::copy(mean.begin(), mean.end(), exact_mean_.begin());
    std::copy(var.begin(), var.end(), exact_var_.begin());
  }

  void moments(const std::string& kernel, cpu::Request request) {
    Guarded<S> mean(channels_), var(channels_), again_mean(channels_), again_var(channels_);
    run_twice(kernel, [&](bool again, void* workspace) {
      return cpu::norm_moments(p_, request, x_.data(), (again ? again_mean : mean).data(),
                               (again ? again_var : var).data(), workspace);
    });
    if (p_.rows == 0) {
      for (int64_t k = 0; k < channels_; ++k) {
        if (mean.data()[k] == mean.data()[k] || var.data()[k] == var.data()[k])
          report_.fail(kernel, "the moments of no numbers are not NaN");
      }
      return;
    }
    // A block of 64 numbers is summed about one of them: its error is at most 64 roundings of the variance,
    // usually less than 4.
    Expected of_mean{exact_mean_, std::vector<double>(channels_), 1}, of_var{exact_var_, exact_var_, 64};
    for (int64_t k = 0; k < channels_; ++k) {
      const double deviation = std::sqrt(exact_var_[k]);
      of_mean.sum_of_abs[k] = std::abs(exact_mean_[k]) + deviation;
      // The means of blocks are doubles, in which f64's own are rounded.
      if (sizeof(S) == 8) of_var.sum_of_abs[k] += std::abs(exact_mean_[k]) * deviation;
    }
    expect(kernel + " mean", mean, again_mean, of_mean);
    expect(kernel + " var", var, again_var, of_var);
  }

  void passes(const std::string& kernel, cpu::Request request) {
    Guarded<S> mean(channels_, 7), mul(channels_, 8), bias(channels_, 9), slope(channels_, 10),
        offset(channels_, 11);
    for (int64_t k = 0; k < channels_; ++k) mean.data()[k] = static_cast<S>(exact_mean_[k]);
    const NormVectors forward{mean.data(), mul.data(), bias.data(), nullptr, nullptr};
    const NormVectors backward{mean.data(), mul.data(), bias.data(), slope.data(), offset.data()};
    Guarded<T> y(p_.numbers()), dx(p_.numbers()), again_y(p_.numbers()), again_dx(p_.numbers());
    Guarded<S> sum(channels_), product(channels_), again_sum(channels_), again_product(channels_);
    run_twice(kernel, [&](bool again, void*) {
      return cpu::normalize(p_, request, x_.data(), forward, (again ? again_y : y).data());
    });
    run_twice(kernel, [&](bool again, void* workspace) {
      return cpu::norm_sums(p_, request, x_.data(), dy_.data(), forward, (again ? again_sum : sum).data(),
                            (again ? again_product : product).data(), workspace);
    });
    run_twice(kernel, [&](bool again, void*) {
      return cpu::norm_gradient(p_, request, x_.data(), dy_.data(), backward, (again ? again_dx : dx).data());
    });

    const std::vector<double> x = x_.doubles(), dy = dy_.doubles();
    const std::vector<double> none(p_.numbers()), no_sum(channels_);
    Expected of_y{none, none, 2}, of_dx{none, none, 3}, of_sum{no_sum, no_sum, p_.rows};
    Expected of_product = of_sum;
    for (int64_t at = 0; at < x_.size(); ++at) {
      const int64_t k = channel_of(p_, at);
      const double centered = x[at] - mean.data()[k], z = centered * mul.data()[k] + bias.data()[k];
      const bool passes = convgrad::passes(p_.activation, z);
      const double g = passes ? dy[at] : 0;
      // Close to a kink, rounding decides.
      const double rounding = 8 * epsilon<S>() * (std::abs(centered * mul.data()[k]) + 1);
      const bool kink = convgrad::passes(p_.activation, z + rounding) != passes ||
                        convgrad::passes(p_.activation, z - rounding) != passes;
      const double doubt = kink ? std::abs(dy[at]) / epsilon<S>() : 0;
      of_y.exact[at] = activated(p_.activation, z);
      of_y.sum_of_abs[at] = std::abs(centered * mul.data()[k]) + std::abs(double(bias.data()[k]));
      of_dx.exact[at] = mul.data()[k] * g + slope.data()[k] * centered + offset.data()[k];
      of_dx.sum_of_abs[at] = 2 + std::abs(centered) + doubt;
      of_sum.exact[k] += g;
      of_sum.sum_of_abs[k] += std::abs(g) + doubt;
      of_product.exact[k] += g * centered;
      of_product.sum_of_abs[k] += std::abs(g * centered) + doubt;
    }
    expect(kernel + " y", y, again_y, of_y);
    expect(kernel + " dx", dx, again_dx, of_dx);
    expect(kernel + " sum", sum, again_sum, of_sum);
    expect(kernel + " product", product, again_product, of_product);
  }

 private:
  template <typename Plan>
  void run_twice(const std::string& kernel, const Plan& plan) {
    for (const bool again : {false, true}) {
      Guarded<unsigned char> workspace(cpu::norm_workspace_bytes(p_, false));
      run(plan(again, workspace.data()), again);
      report_.expect_intact(what_ + ", " + kernel + ", workspace", workspace);
    }
    report_.tried("batch_norm " + kernel);
  }

  template <typename Stored>
  void expect(const std::string& kernel, const Guarded<Stored>& result, const Guarded<Stored>& again,
              const Expected& expected) {
    const std::string call = what_ + ", " + kernel;
    report_.expect_intact(call, result);
    report_.expect_close(call, result, expected);
    if (!(result == again)) report_.fail(call, "other bits where tasks come in another order");
  }

  Report& report_;
  const NormProblem p_;
  const std::string what_;
  const int64_t channels_;
  const Guarded<T> x_, dy_;
  std::vector<double> exact_mean_, exact_var_;
};

void check(Report& report, const NormProblem& p, double far, const std::string& filter) {
  const std::string what = "batch_norm of " + std::to_string(p.groups) + " groups, " +
                           std::to_string(p.rows) + " rows, " + std::to_string(p.channels) +
                           " channels, activation " + std::to_string(static_cast<int>(p.activation)) +
                           ", means up to " + std::to_string(far) + ", " + dtype_name(p.dtype);
  if (what.find(filter) == std::string::npos) return;
  dispatch(p.dtype, [&](auto stored) {
    BatchNormCheck<typename decltype(stored)::type> check(report, p, far, what);
    for (const auto& [name, request] : reference_and_vector()) {
      if (p.activation == Activation::kNone) check.moments(name, request);
      check.passes(name, request);
    }
  });
}

}  // namespace

void check_batch_norm(Report& report, const std::string& filter) {
  for (const DType dtype : {DType::kF32, DType::kF64, DType::kBF16, DType::kF16}) {
    for (const Activation activation : {Activation::kNone, Activation::kRelu, Activation::kRelu6}) {
      for (const int64_t rows : {0, 1, 7, 65, 1000})
        for (const int64_t channels : {0, 1, 3, 16, 17, 72, 130})
          check(report, {dtype, 1, rows, channels, activation}, 1, filter);
      check(report, {dtype, 3, 70, 24, activation}, 1, filter);
      check(report, {dtype, 2, 5000, 33, activation}, 1, filter);  // several tasks in each group
    }
  }
  // Squares of such means have no digit left for the variance.
  check(report, {DType::kF32, 1, 5000, 33}, 1e4, filter);
  check(report, {DType::kF32, 1, 130, 3}, 1e6, filter);
  check(report, {DType::kF64, 1, 1300, 64}, 1e6, filter);
}

}  // namespace convgrad::test
