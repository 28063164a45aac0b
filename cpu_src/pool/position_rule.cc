// Finds the positions of windows with a NaN or with -infinity alone by the rules of XLA's select-and-scatter
// and select-and-gather (PositionRule in common_src/problem.h). In all other windows every rule gives the
// first maximum.
#include <limits>

#include "common_src/dispatch.h"
#include "common_src/window.h"
#include "cpu_src/kernels.h"

namespace convgrad::cpu {
namespace {

// Returns the position of output o in one image's channel, whose numbers are `step` apart.
template <typename T>
int32_t ruled_position(const PoolProblem& p, const T* x, int64_t step, const Coord& o) {
  const bool scatters = p.position_rule == PositionRule::kSelectAndScatter;
  Sum<T> best = -std::numeric_limits<Sum<T>>::infinity();
  int64_t chosen = kNone;
  bool is_first = scatters;
  // A second tap on padding in sequence changes nothing.
  for_each_stretch(p.axis, o.at, [&](int64_t i) {
    if (i == kNone && !scatters) return;
    const Sum<T> next = i == kNone ? -std::numeric_limits<Sum<T>>::infinity() : widen(x[i * step]);
    if (is_first || !(best >= next)) {
      best = next;
      chosen = i;
    }
    is_first = false;
  });
  return static_cast<int32_t>(chosen);
}

}  // namespace

Stage by_position_rule(const PoolProblem& p, const void* x_data, const void* y_data, int32_t* position) {
  return dispatch(p.dtype, [&](auto stored) {
    using T = typename decltype(stored)::type;
    const T* x = static_cast<const T*>(x_data);
    const T* y = static_cast<const T*>(y_data);
    const int64_t rows = p.axis[0].output * p.axis[1].output, C = p.channels, row = p.axis[2].output * C;
    return Stage{p.batch * rows, [=](int64_t task) {
                   constexpr Sum<T> kLeast = -std::numeric_limits<Sum<T>>::infinity();
                   const T* x_image = x + task / rows * p.inputs() * C;
                   for (int64_t at = 0; at < row; ++at) {
                     if (widen(y[task * row + at]) > kLeast) continue;  // NaN is not greater
                     const Coord o = output_coord(p.axis, task % rows * p.axis[2].output + at / C);
                     position[task * row + at] = ruled_position(p, x_image + at % C, C, o);
                   }
                 }};
  });
}

}  // namespace convgrad::cpu
