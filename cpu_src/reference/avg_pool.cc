// Computes average pooling and its gradient directly: y[n,o,c] = (sum over r of x[n,i,c]) / count(o);
// dx[n,i,c] = sum over r of dy[n,o,c] / count(o).
#include "common_src/dispatch.h"
#include "common_src/window.h"
#include "cpu_src/kernels.h"
#include "cpu_src/long_sums.h"

namespace convgrad::cpu {
namespace {

// Returns the divisor of output o's sum: its window's taps, all of them or those on the input; or 1.
int64_t count(const PoolProblem& p, int64_t o) {
  if (p.sum) return 1;
  if (p.count_include_pad) return p.taps();
  const Coord at = output_coord(p.axis, o);
  int64_t on_input = 1;
  for (int a = 0; a < kAxes; ++a)
    on_input *= taps_of_output(p.axis[a]).from(p.axis[a].pad_lo - at.at[a] * p.axis[a].stride).count;
  return on_input;
}

}  // namespace

Work reference_avg_pool(const PoolProblem& p, const void* x_data, void* y_data) {
  return dispatch(p.dtype, [&](auto stored) {
    using T = typename decltype(stored)::type;
    const T* x = static_cast<const T*>(x_data);
    T* y = static_cast<T*>(y_data);
    const int64_t rows = p.axis[0].output * p.axis[1].output, C = p.channels;
    return Work{{{p.batch * rows, [=](int64_t task) {
                    const T* x_image = x + task / rows * p.inputs() * C;
                    LongSums<T> sums(C);
                    for (int64_t o2 = 0; o2 < p.axis[2].output; ++o2) {
                      const int64_t o = task % rows * p.axis[2].output + o2;
                      sums.clear();
                      for_each_input(p.axis, output_coord(p.axis, o).at, [&](int64_t, int64_t i) {
                        Sum<T>* sum = sums.next();
                        for (int64_t c = 0; c < C; ++c) sum[c] += widen(x_image[i * C + c]);
                      });
                      const Sum<T> divisor = static_cast<Sum<T>>(count(p, o));
                      const Sum<T>* total = sums.totals();
                      T* y_at = y + (task * p.axis[2].output + o2) * C;
                      for (int64_t c = 0; c < C; ++c) y_at[c] = narrow<T>(total[c] / divisor);
                    }
                  }}}};
  });
}

Work reference_avg_pool_grad(const PoolProblem& p, const void* dy_data, void* dx_data) {
  return dispatch(p.dtype, [&](auto stored) {
    using T = typename decltype(stored)::type;
    const T* dy = static_cast<const T*>(dy_data);
    T* dx = static_cast<T*>(dx_data);
    const int64_t rows = p.axis[0].input * p.axis[1].input, C = p.channels;
    return Work{{{p.batch * rows, [=](int64_t task) {
                    const T* dy_image = dy + task / rows * p.outputs() * C;
                    LongSums<T> sums(C);
                    for (int64_t i2 = 0; i2 < p.axis[2].input; ++i2) {
                      sums.clear();
                      const int64_t i = task % rows * p.axis[2].input + i2;
                      for_each_output(p.axis, input_coord(p.axis, i).at, [&](int64_t, int64_t o) {
                        const Sum<T> divisor = static_cast<Sum<T>>(count(p, o));
                        Sum<T>* sum = sums.next();
                        for (int64_t c = 0; c < C; ++c) sum[c] += widen(dy_image[o * C + c]) / divisor;
                      });
                      const Sum<T>* total = sums.totals();
                      T* dx_at = dx + (task * p.axis[2].input + i2) * C;
                      for (int64_t c = 0; c < C; ++c) dx_at[c] = narrow<T>(total[c]);
                    }
                  }}}};
  });
}

}  // namespace convgrad::cpu
