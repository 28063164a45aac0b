// Finds the positions of windows with a NaN or with -infinity alone by the rules of XLA's select-and-scatter
// and select-and-gather (PositionRule in common_src/problem.h). In all other windows every rule gives the
// first maximum.
#include <cmath>

#include "common_src/dispatch.h"
#include "common_src/window.h"
#include "cuda_src/arch/launch.cuh"
#include "cuda_src/pool_kernels.h"

namespace convgrad::cuda {
namespace {

template <typename Stored>
__global__ void position_rule_kernel(PoolProblem p, const Stored* x, const Stored* y, int32_t* position) {
  using Value = Sum<Stored>;
  constexpr Value kLeast = -static_cast<Value>(INFINITY);
  const bool scatters = p.position_rule == PositionRule::kSelectAndScatter;
  const int64_t count = p.batch * p.outputs() * p.channels;
  for (int64_t at = first_element(); at < count; at += element_step()) {
    if (widen(y[at]) > kLeast) continue;  // NaN is not greater
    const int64_t c = at % p.channels;
    const Coord o = output_coord(p.axis, at / p.channels);
    Value best = kLeast;
    int64_t chosen = kNone;
    bool is_first = scatters;
    // A second tap on padding in sequence changes nothing.
    for_each_stretch(p.axis, o.at, [&](int64_t i) {
      if (i == kNone && !scatters) return;
      const Value next = i == kNone ? kLeast : widen(x[(o.n * p.inputs() + i) * p.channels + c]);
      if (is_first || !(best >= next)) {
        best = next;
        chosen = i;
      }
      is_first = false;
    });
    position[at] = static_cast<int32_t>(chosen);
  }
}

}  // namespace

cudaError_t by_position_rule(const PoolProblem& p, const void* x, const void* y, int32_t* position,
                             cudaStream_t stream) {
  const int64_t count = p.batch * p.outputs() * p.channels;
  return dispatch(p.dtype, [&](auto tag) {
    using Stored = typename decltype(tag)::type;
    return launch_elements(position_rule_kernel<Stored>, count, stream, p, static_cast<const Stored*>(x),
                           static_cast<const Stored*>(y), position);
  });
}

}  // namespace convgrad::cuda
