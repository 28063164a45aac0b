// Computes the sums of a convolution and its gradients directly from their formulas. These kernels serve
// every problem, and tests compare the other kernels with them.
//
//     y[n,o,k]  = sum over r, c of x[n,i,c] * w[r,c,k]
//     dx[n,i,c] = sum over r, k of dy[n,o,k] * w[r,c,k]
//     dw[r,c,k] = sum over n, o of x[n,i,c] * dy[n,o,k]
//     db[k]     = sum over n, o of dy[n,o,k]
#include <algorithm>

#include "common_src/dispatch.h"
#include "common_src/integers.h"
#include "common_src/relation.h"
#include "common_src/window.h"
#include "cpu_src/kernels.h"
#include "cpu_src/long_sums.h"

namespace convgrad::cpu {
namespace {

// Adds fprop's terms of one position and group: sum[k] += x[n,i,c] * w[r,c,k] for every tap and channel.
template <typename T>
void add_taps_of_output(const ConvProblem& p, const T* x_image, const T* w, int64_t o0, int64_t o1,
                        int64_t o2, int64_t group, LongSums<T>& sums) {
  const int64_t C = p.in_channels, K = p.out_channels, group_in = p.group_in(), group_out = p.group_out();
  for_each_input(p.axis, {o0, o1, o2}, [&](int64_t r, int64_t i) {
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

constexpr int64_t kPartialSums = 16;

// Returns a dot product of 16 interleaved sums, added in a fixed order at the end. The compiler may keep
// these in vector registers, which it may not do with one running sum.
template <typename T>
Sum<T> dot(const T* a, const T* b, int64_t count) {
  Sum<T> lanes[kPartialSums] = {};
  int64_t at = 0;
  for (; at + kPartialSums <= count; at += kPartialSums) {
    for (int64_t lane = 0; lane < kPartialSums; ++lane)
      lanes[lane] += widen(a[at + lane]) * widen(b[at + lane]);
  }
  for (int64_t lane = 0; at + lane < count; ++lane) lanes[lane] += widen(a[at + lane]) * widen(b[at + lane]);
  for (int64_t half = kPartialSums / 2; half > 0; half /= 2) {
    for (int64_t lane = 0; lane < half; ++lane) lanes[lane] += lanes[lane + half];
  }
  return lanes[0];
}

// Adds dgrad's terms of one position and group: sum[c] += dot(dy[n,o,:], w[r,c,:]) for every tap, long rows
// in several parts.
template <typename T>
void add_taps_of_input(const ConvProblem& p, const T* dy_image, const T* w, int64_t i0, int64_t i1,
                       int64_t i2, int64_t group, LongSums<T>& sums) {
  const int64_t K = p.out_channels, group_in = p.group_in(), group_out = p.group_out();
  for_each_output(p.axis, {i0, i1, i2}, [&](int64_t r, int64_t o) {
    const T* dy_at = dy_image + o * K + group * group_out;
    const T* w_at = w + r * group_in * K + group * group_out;
    for (int64_t k = 0; k < group_out; k += kPartialSums * kSumRun) {
      const int64_t count = std::min(group_out - k, kPartialSums * kSumRun);
      Sum<T>* sum = sums.next();
      for (int64_t c = 0; c < group_in; ++c) sum[c] += dot(dy_at + k, w_at + c * K + k, count);
    }
  });
}

// The place of a tile in dw: tap (r0, r1, r2), channels [c_first, c_first + c_count) of one group.
struct FilterBlock {
  int64_t r0, r1, r2, group, c_first, c_count;
};

// Adds wgrad's terms of one tile: sum[c,k] += x[n,i,c] * dy[n,o,k] for every position.
template <typename T>
void sum_tile(const ConvProblem& p, const FilterBlock& tile, const T* x, const T* dy, LongSums<T>& sums) {
  const int64_t K = p.group_out();
  const Axis &a0 = p.axis[0], &a1 = p.axis[1], &a2 = p.axis[2];
  const auto tied = [](const Axis& axis, int64_t r) {
    return outputs_of_tap(axis).from(axis.pad_lo - r * axis.filter_dilation);
  };
  const Progression tied0 = tied(a0, tile.r0), tied1 = tied(a1, tile.r1), tied2 = tied(a2, tile.r2);
  for (int64_t n = 0; n < p.batch; ++n) {
    for (int64_t j0 = 0; j0 < tied0.count; ++j0) {
      for (int64_t j1 = 0; j1 < tied1.count; ++j1) {
        const int64_t x_row =
            ((n * a0.input + tied0.partner_at(j0)) * a1.input + tied1.partner_at(j1)) * a2.input;
        const int64_t dy_row = ((n * a0.output + tied0.at(j0)) * a1.output + tied1.at(j1)) * a2.output;
        for (int64_t j2 = 0; j2 < tied2.count; ++j2) {
          const T* x_at =
              x + (x_row + tied2.partner_at(j2)) * p.in_channels + tile.group * p.group_in() + tile.c_first;
          const T* dy_at = dy + (dy_row + tied2.at(j2)) * p.out_channels + tile.group * K;
          Sum<T>* sum = sums.next();
          for (int64_t c = 0; c < tile.c_count; ++c) {
            const Sum<T> x_c = widen(x_at[c]);
            for (int64_t k = 0; k < K; ++k) sum[c * K + k] += x_c * widen(dy_at[k]);
          }
        }
      }
    }
  }
}

}  // namespace

// A task computes one row of outputs along the innermost axis. The sums of one output position, over all its
// channels k, are in a small buffer to which the contiguous rows w[r,c,:] are added.
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
                add_taps_of_output(p, x_image, w, o0, o1, o2, g, sums);
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

// A task computes one row of inputs along the innermost axis. Along k both dy[n,o,:] and w[r,c,:] are
// contiguous, so each pair (r, c) is one dot product.
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
                        add_taps_of_input(p, dy_image, w, i0, i1, i2, g, sums);
                        const Sum<T>* dx_sums = sums.totals();
                        const int64_t dx_at = dx_row + i2 * p.in_channels + g * p.group_in();
                        for (int64_t c = 0; c < p.group_in(); ++c)
                          store_sum(dx, dx_at + c, dx_sums[c], p.unrounded);
                      }
                    }
                  }}}};
  });
}

// A task computes one tap r of one group and a few channels c: a tile of sums over c and k to which every
// position adds an outer product.
Work reference_wgrad(const ConvProblem& p, const void* x_data, const void* dy_data, void* dw_data) {
  return dispatch(p.dtype, [&](auto stored) {
    using T = typename decltype(stored)::type;
    const T* x = static_cast<const T*>(x_data);
    const T* dy = static_cast<const T*>(dy_data);
    T* dw = static_cast<T*>(dw_data);
    const int64_t c_step = wgrad_channels_per_task(p);
    const int64_t c_tiles = divide_up(p.group_in(), c_step);
    return Work{{{p.taps() * p.groups * c_tiles, [=](int64_t task) {
                    const int64_t r = task / (p.groups * c_tiles);
                    const int64_t c_first = task % c_tiles * c_step;
                    const FilterBlock tile{r / (p.axis[1].taps * p.axis[2].taps),
                                           r / p.axis[2].taps % p.axis[1].taps,
                                           r % p.axis[2].taps,
                                           task / c_tiles % p.groups,
                                           c_first,
                                           std::min(c_step, p.group_in() - c_first)};
                    LongSums<T> sums(tile.c_count * p.group_out());
                    sum_tile(p, tile, x, dy, sums);
                    const Sum<T>* total = sums.totals();
                    for (int64_t c = 0; c < tile.c_count; ++c) {
                      const int64_t dw_at =
                          (r * p.group_in() + c_first + c) * p.out_channels + tile.group * p.group_out();
                      for (int64_t k = 0; k < p.group_out(); ++k)
                        store_sum(dw, dw_at + k, total[c * p.group_out() + k], p.unrounded);
                    }
                  }}}};
  });
}

// A task sums its own rows of dy into a row of partial sums, which are then added in order. The assignment of
// rows depends on the problem alone.
Work reference_bgrad(const BiasProblem& p, const void* dy_data, void* db_data, void* workspace) {
  return dispatch(p.dtype, [&](auto stored) {
    using T = typename decltype(stored)::type;
    const T* dy = static_cast<const T*>(dy_data);
    T* db = static_cast<T*>(db_data);
    Sum<T>* partial = static_cast<Sum<T>*>(workspace);
    const int64_t tasks = bgrad_tasks(p), rows_per_task = bgrad_rows_per_task(p), K = p.channels;
    return Work{{{tasks,
                  [=](int64_t task) {
                    LongSums<T> sums(K);
                    const int64_t last = std::min(p.rows, (task + 1) * rows_per_task);
                    for (int64_t row = task * rows_per_task; row < last; ++row) {
                      Sum<T>* sum = sums.next();
                      for (int64_t k = 0; k < K; ++k) sum[k] += widen(dy[row * K + k]);
                    }
                    std::copy_n(sums.totals(), K, partial + task * K);
                  }},
                 {1, [=](int64_t) {
                    for (int64_t k = 0; k < K; ++k) {
                      Sum<T> sum = 0;
                      for (int64_t task = 0; task < tasks; ++task) sum += partial[task * K + k];
                      db[k] = narrow<T>(sum);
                    }
                  }}}};
  });
}

}  // namespace convgrad::cpu
