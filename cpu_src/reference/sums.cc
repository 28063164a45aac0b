// y[n,o,k] = sum over r, c of x[n,i,c] * w[r,c,k],  with i tied to o and r, and the epilogue.
//
// A task is one row of outputs along the innermost axis. The sums of one output position, over all its
// channels k, run in a small buffer that the contiguous rows w[r,c,:] are added into.
#include "common_src/dispatch.h"
#include "cpu_src/kernels.h"
#include "cpu_src/reference/long_sums.h"
#include "cpu_src/reference/window.h"

namespace convgrad::cpu {
namespace {

// The sums of one position and group: sum[k] += x[n,i,c] * w[r,c,k] for every tap and channel.
template <typename T>
void add_products(const ConvProblem& p, const T* x_image, const T* w, int64_t o0, int64_t o1, int64_t o2,
                  int64_t group, LongSums<T>& sums) {
  const int64_t C = p.in_channels, K = p.out_channels, group_in = p.group_in(), group_out = p.group_out();
  for_each_input(p.axis, {{o0, o1, o2}}, [&](int64_t r, int64_t i) {
    const T* x_at = x_image + i * C + group * group_in;
    const T* w_at = w + r * group_in * K + group * group_out;
    for (int64_t c = 0; c < group_in; ++c) {
      const Sum<T> x_c = widen(x_at[c]);
      const T* w_c = w_at + c * K;
      Sum<T>* sum = sums.next();
      for (int64_t k = 0; k < group_out; ++k) sum[k] += x_c * widen(w_c[k]);
    }
  });
}

}  // namespace

Work reference_fprop(const ConvProblem& p, const void* x_data, const void* w_data, Epilogue epilogue,
                     void* y_data) {
  return dispatch(p.dtype, [&](auto stored) {
    using T = typename decltype(stored)::type;
    const T* x = static_cast<const T*>(x_data);
    const T* w = static_cast<const T*>(w_data);
    T* y = static_cast<T*>(y_data);
    const int64_t rows = p.axis[0].output * p.axis[1].output;
    return Work{
        {{p.batch * rows, [=](int64_t task) {
            const int64_t n = task / rows, o0 = task % rows / p.axis[1].output, o1 = task % p.axis[1].output;
            const T* x_image = x + n * p.inputs() * p.in_channels;
            const int64_t y_row = task * p.axis[2].output * p.out_channels;
            LongSums<T> sums(p.group_out());
            for (int64_t o2 = 0; o2 < p.axis[2].output; ++o2) {
              for (int64_t g = 0; g < p.groups; ++g) {
                sums.clear();
                add_products(p, x_image, w, o0, o1, o2, g, sums);
                const Sum<T>* y_sums = sums.totals();
                const int64_t first_k = g * p.group_out();
                const int64_t y_at = y_row + o2 * p.out_channels + first_k;
                for (int64_t k = 0; k < p.group_out(); ++k)
                  store_sum(y, y_at + k, epilogue.finish_channel<T>(y_sums[k], first_k + k), p.unrounded);
              }
            }
          }}}};
  });
}

}  // namespace convgrad::cpu
