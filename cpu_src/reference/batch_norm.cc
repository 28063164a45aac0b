// Batch norm as the formulas say: one task per channel, two passes for the variance, sums in double.
#include "common_src/batch_norm.h"

#include "common_src/dispatch.h"
#include "common_src/long_sum.h"
#include "cpu_src/kernels.h"

namespace convgrad::cpu {
namespace {

// A channel's constants, and its numbers.
template <typename T>
struct NormChannel {
  using S = Sum<T>;
  NormChannel(const NormProblem& p, const NormVectors& v, int64_t channel)
      : problem(p), first(channel / p.channels * p.rows * p.channels + channel % p.channels) {
    mean = at(v.mean, channel), mul = at(v.mul, channel), bias = at(v.bias, channel);
    slope = at(v.slope, channel), offset = at(v.offset, channel);
  }
  static S at(const void* vector, int64_t channel) {
    return vector == nullptr ? S{0} : static_cast<const S*>(vector)[channel];
  }
  int64_t place(int64_t row) const { return first + row * problem.channels; }
  S z(S x) const { return (x - mean) * mul + bias; }
  S g(S x, S dy) const { return passes(problem.activation, z(x)) ? dy : S{0}; }

  const NormProblem problem;
  int64_t first;
  S mean, mul, bias, slope, offset;
};

}  // namespace

Work reference_norm_moments(const NormProblem& p, const void* x_data, void* mean_data, void* var_data) {
  return dispatch(p.dtype, [&](auto stored) {
    using T = typename decltype(stored)::type;
    const T* x = static_cast<const T*>(x_data);
    Sum<T>*mean = static_cast<Sum<T>*>(mean_data), *var = static_cast<Sum<T>*>(var_data);
    return Work{{{p.groups * p.channels, [=](int64_t k) {
                    const NormChannel<T> channel(p, {}, k);
                    LongSum<double> sum, squares;
                    for (int64_t row = 0; row < p.rows; ++row) sum.add(widen(x[channel.place(row)]));
                    const double rows = static_cast<double>(p.rows), center = sum.value() / rows;
                    for (int64_t row = 0; row < p.rows; ++row) {
                      const double apart = widen(x[channel.place(row)]) - center;
                      squares.add(apart * apart);
                    }
                    mean[k] = static_cast<Sum<T>>(center);
                    var[k] = static_cast<Sum<T>>(squares.value() / rows);
                  }}}};
  });
}

Work reference_norm_sums(const NormProblem& p, const void* x_data, const void* dy_data,
                         const NormVectors& vectors, void* sum_data, void* product_data) {
  return dispatch(p.dtype, [&](auto stored) {
    using T = typename decltype(stored)::type;
    const T *x = static_cast<const T*>(x_data), *dy = static_cast<const T*>(dy_data);
    Sum<T>*sum = static_cast<Sum<T>*>(sum_data), *product = static_cast<Sum<T>*>(product_data);
    return Work{{{p.groups * p.channels, [=](int64_t k) {
                    const NormChannel<T> channel(p, vectors, k);
                    LongSum<double> g_sum, g_product;
                    for (int64_t row = 0; row < p.rows; ++row) {
                      const Sum<T> value = widen(x[channel.place(row)]);
                      const double g = channel.g(value, widen(dy[channel.place(row)]));
                      g_sum.add(g);
                      g_product.add(g * (value - channel.mean));
                    }
                    sum[k] = static_cast<Sum<T>>(g_sum.value());
                    product[k] = static_cast<Sum<T>>(g_product.value());
                  }}}};
  });
}

Work reference_normalize(const NormProblem& p, const void* x_data, const NormVectors& vectors, void* y_data) {
  return dispatch(p.dtype, [&](auto stored) {
    using T = typename decltype(stored)::type;
    const T* x = static_cast<const T*>(x_data);
    T* y = static_cast<T*>(y_data);
    return Work{{{p.groups * p.channels, [=](int64_t k) {
                    const NormChannel<T> channel(p, vectors, k);
                    for (int64_t row = 0; row < p.rows; ++row) {
                      const int64_t at = channel.place(row);
                      y[at] = narrow<T>(activated(p.activation, channel.z(widen(x[at]))));
                    }
                  }}}};
  });
}

Work reference_norm_gradient(const NormProblem& p, const void* x_data, const void* dy_data,
                             const NormVectors& vectors, void* dx_data) {
  return dispatch(p.dtype, [&](auto stored) {
    using T = typename decltype(stored)::type;
    const T *x = static_cast<const T*>(x_data), *dy = static_cast<const T*>(dy_data);
    T* dx = static_cast<T*>(dx_data);
    return Work{{{p.groups * p.channels, [=](int64_t k) {
                    const NormChannel<T> channel(p, vectors, k);
                    for (int64_t row = 0; row < p.rows; ++row) {
                      const int64_t at = channel.place(row);
                      const Sum<T> value = widen(x[at]), g = channel.g(value, widen(dy[at]));
                      dx[at] = narrow<T>(channel.mul * g +
                                         (channel.slope * (value - channel.mean) + channel.offset));
                    }
                  }}}};
  });
}

}  // namespace convgrad::cpu
