// Long sums in parts: part j adds the terms [j * length, (j+1) * length), then the parts are added in order.
// A pure function of the problem, so that every device gives the same bits.
#pragma once

#include <cstdint>

#include "common_src/problem.h"

namespace convgrad::cuda {

struct Split {
  int64_t parts;
  int64_t length;  // terms a part; the last part may have fewer, or none
};

// Where wgrad's kernels write their sums as they are, for add_parts() to round; null where there is one part,
// which they round themselves. One part of an unrounded result is that result.
inline void* partials_of(const ConvProblem& p, int64_t parts, void* dw, void* workspace) {
  if (parts > 1) return workspace;
  return p.unrounded ? dw : nullptr;
}

// How many parts wgrad's sum is split into: as many as are wanted, at most so many, and no more than keep the
// partial sums below a twentieth of x and dy together; one at least.
int64_t wgrad_parts(const ConvProblem&, int64_t wanted, int64_t most);

Split wgrad_split(const ConvProblem&);       // of the tiled kernel
Split gemm_wgrad_split(const ConvProblem&);  // of the multistage one

// Whether wgrad runs over phases of the taps (common_src/phase.h), because inputs are dilated or most are
// padding.
bool filter_has_phases(const ConvProblem&);
// How many positions there are; where there are phases, about how many a tap of the largest one meets.
int64_t filter_depth(const ConvProblem&);

}  // namespace convgrad::cuda
