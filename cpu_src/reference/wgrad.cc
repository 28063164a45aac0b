// dw[r,c,k] = sum over n, o of x[n,i,c] * dy[n,o,k],  with i tied to o and r.
//
// A task is one tap r, one group and a few channels c: a tile of sums over c and k that every position
// adds an outer product to.
#include <algorithm>

#include "common_src/dispatch.h"
#include "common_src/integers.h"
#include "common_src/relation.h"
#include "cpu_src/kernels.h"
#include "cpu_src/reference/long_sums.h"

namespace convgrad::cpu {
namespace {

// The tile's place in dw: tap (r0, r1, r2), channels [c_first, c_first + c_count) of one group.
struct Tile {
  int64_t r0, r1, r2, group, c_first, c_count;
};

// sum[c,k] += x[n,i,c] * dy[n,o,k] for every position.
template <typename T>
void sum_tile(const ConvProblem& p, const Tile& tile, const T* x, const T* dy, LongSums<T>& sums) {
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
                    const Tile tile{r / (p.axis[1].taps * p.axis[2].taps),
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

}  // namespace convgrad::cpu
