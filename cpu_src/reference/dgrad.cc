// dx[n,i,c] = sum over r, k of dy[n,o,k] * w[r,c,k],  with o tied to i and r.
//
// A task is one row of inputs along the innermost axis. Along k both dy[n,o,:] and w[r,c,:] are
// contiguous, so each pair (r, c) is one dot product.
#include <algorithm>

#include "common_src/dispatch.h"
#include "cpu_src/kernels.h"
#include "cpu_src/reference/long_sums.h"
#include "cpu_src/reference/window.h"

namespace convgrad::cpu {
namespace {

constexpr int64_t kLanes = 16;

// A dot product in 16 interleaved sums, added in a fixed order at the end: the compiler may keep them in
// vector registers, which it may not do with one running sum.
template <typename T>
Sum<T> dot(const T* a, const T* b, int64_t count) {
  Sum<T> lanes[kLanes] = {};
  int64_t at = 0;
  for (; at + kLanes <= count; at += kLanes) {
    for (int64_t lane = 0; lane < kLanes; ++lane) lanes[lane] += widen(a[at + lane]) * widen(b[at + lane]);
  }
  for (int64_t lane = 0; at + lane < count; ++lane) lanes[lane] += widen(a[at + lane]) * widen(b[at + lane]);
  for (int64_t half = kLanes / 2; half > 0; half /= 2) {
    for (int64_t lane = 0; lane < half; ++lane) lanes[lane] += lanes[lane + half];
  }
  return lanes[0];
}

// The sums of one position and group: sum[c] += dot(dy[n,o,:], w[r,c,:]) for every tap, long rows in pieces.
template <typename T>
void add_products(const ConvProblem& p, const T* dy_image, const T* w, int64_t i0, int64_t i1, int64_t i2,
                  int64_t group, LongSums<T>& sums) {
  const int64_t K = p.out_channels, group_in = p.group_in(), group_out = p.group_out();
  for_each_output(p.axis, {{i0, i1, i2}}, [&](int64_t r, int64_t o) {
    const T* dy_at = dy_image + o * K + group * group_out;
    const T* w_at = w + r * group_in * K + group * group_out;
    for (int64_t k = 0; k < group_out; k += kLanes * kSumRun) {
      const int64_t count = std::min(group_out - k, kLanes * kSumRun);
      Sum<T>* sum = sums.next();
      for (int64_t c = 0; c < group_in; ++c) sum[c] += dot(dy_at + k, w_at + c * K + k, count);
    }
  });
}

}  // namespace

Work reference_dgrad(const ConvProblem& p, const void* dy_data, const void* w_data, void* dx_data) {
  return dispatch(p.dtype, [&](auto stored) {
    using T = typename decltype(stored)::type;
    const T* dy = static_cast<const T*>(dy_data);
    const T* w = static_cast<const T*>(w_data);
    T* dx = static_cast<T*>(dx_data);
    const int64_t rows = p.axis[0].input * p.axis[1].input;
    return Work{{{p.batch * rows, [=](int64_t task) {
                    const int64_t n = task / rows, i0 = task % rows / p.axis[1].input,
                                  i1 = task % p.axis[1].input;
                    const T* dy_image = dy + n * p.outputs() * p.out_channels;
                    const int64_t dx_row = task * p.axis[2].input * p.in_channels;
                    LongSums<T> sums(p.group_in());
                    for (int64_t i2 = 0; i2 < p.axis[2].input; ++i2) {
                      for (int64_t g = 0; g < p.groups; ++g) {
                        sums.clear();
                        add_products(p, dy_image, w, i0, i1, i2, g, sums);
                        const Sum<T>* dx_sums = sums.totals();
                        const int64_t dx_at = dx_row + i2 * p.in_channels + g * p.group_in();
                        for (int64_t c = 0; c < p.group_in(); ++c)
                          store_sum(dx, dx_at + c, dx_sums[c], p.unrounded);
                      }
                    }
                  }}}};
  });
}

}  // namespace convgrad::cpu
