// Computes max pooling, its gradient and its jvp directly: y[n,o,c] = max over r of x[n,i,c]; position[n,o,c]
// = the first i, in row-major order, that attains it.
//
// The gradient gathers: an input takes dy from the outputs whose windows hold it and chose it, so no two
// tasks write to one place. The jvp reads at the chosen positions.
#include <limits>
#include <vector>

#include "common_src/dispatch.h"
#include "common_src/window.h"
#include "cpu_src/kernels.h"

namespace convgrad::cpu {
namespace {

// NaN exceeds every number, as in XLA's max.
template <typename S>
bool exceeds(S candidate, S best) {
  return candidate > best || (candidate != candidate && best == best);
}

}  // namespace

Work reference_max_pool(const PoolProblem& p, const void* x_data, void* y_data, int32_t* position) {
  return dispatch(p.dtype, [&](auto stored) {
    using T = typename decltype(stored)::type;
    const T* x = static_cast<const T*>(x_data);
    T* y = static_cast<T*>(y_data);
    const int64_t rows = p.axis[0].output * p.axis[1].output, C = p.channels;
    return Work{{{p.batch * rows, [=](int64_t task) {
                    const T* x_image = x + task / rows * p.inputs() * C;
                    std::vector<Sum<T>> best(C);
                    std::vector<int32_t> chosen(C);
                    for (int64_t o2 = 0; o2 < p.axis[2].output; ++o2) {
                      const int64_t o = task % rows * p.axis[2].output + o2;
                      best.assign(C, -std::numeric_limits<Sum<T>>::infinity());
                      chosen.assign(C, -1);
                      for_each_input(p.axis, output_coord(p.axis, o).at, [&](int64_t, int64_t i) {
                        for (int64_t c = 0; c < C; ++c) {
                          const Sum<T> candidate = widen(x_image[i * C + c]);
                          // The window's first input is taken even if it is -infinity.
                          if (chosen[c] < 0 || exceeds(candidate, best[c])) {
                            best[c] = candidate;
                            chosen[c] = static_cast<int32_t>(i);
                          }
                        }
                      });
                      const int64_t at = (task * p.axis[2].output + o2) * C;
                      for (int64_t c = 0; c < C; ++c) {
                        y[at + c] = narrow<T>(best[c]);
                        if (position) position[at + c] = chosen[c];
                      }
                    }
                  }}}};
  });
}

Work reference_max_pool_grad(const PoolProblem& p, const void* dy_data, const int32_t* position,
                             void* dx_data) {
  return dispatch(p.dtype, [&](auto stored) {
    using T = typename decltype(stored)::type;
    const T* dy = static_cast<const T*>(dy_data);
    T* dx = static_cast<T*>(dx_data);
    const int64_t rows = p.axis[0].input * p.axis[1].input, C = p.channels;
    return Work{{{p.batch * rows, [=](int64_t task) {
                    const int64_t n = task / rows, image = p.outputs() * C;
                    const T* dy_image = dy + n % p.operand_batch * image;
                    const int32_t* position_image = position + n % p.position_batch * image;
                    std::vector<Sum<T>> sum(C);
                    for (int64_t i2 = 0; i2 < p.axis[2].input; ++i2) {
                      const int64_t i = task % rows * p.axis[2].input + i2;
                      sum.assign(C, Sum<T>{0});
                      for_each_output(p.axis, input_coord(p.axis, i).at, [&](int64_t, int64_t o) {
                        const int64_t at = o * C;
                        for (int64_t c = 0; c < C; ++c) {
                          if (position_image[at + c] == i) sum[c] += widen(dy_image[at + c]);
                        }
                      });
                      T* dx_at = dx + (task * p.axis[2].input + i2) * C;
                      for (int64_t c = 0; c < C; ++c) dx_at[c] = narrow<T>(sum[c]);
                    }
                  }}}};
  });
}

Work max_pool_select(const PoolProblem& p, const void* t_data, const int32_t* position, void* selected_data) {
  return dispatch(p.dtype, [&](auto stored) {
    using T = typename decltype(stored)::type;
    const T* t = static_cast<const T*>(t_data);
    T* selected = static_cast<T*>(selected_data);
    const int64_t rows = p.axis[0].output * p.axis[1].output, C = p.channels;
    return Work{{{p.batch * rows, [=](int64_t task) {
                    const int64_t n = task / rows, row = p.axis[2].output * C;
                    const T* t_image = t + n % p.operand_batch * p.inputs() * C;
                    const int32_t* i = position + (n % p.position_batch * rows + task % rows) * row;
                    for (int64_t at = 0; at < row; ++at) {
                      // Positions are a buffer's content, which no handler has checked.
                      const bool inside = i[at] >= 0 && i[at] < p.inputs();
                      selected[task * row + at] = inside ? t_image[i[at] * C + at % C] : narrow<T>(0);
                    }
                  }}}};
  });
}

}  // namespace convgrad::cpu
