// Splits long sums into parts: part j adds the terms [j * length, (j+1) * length), then the parts are added
// in order. The split is a pure function of the problem, so that every device gives the same bits.
#pragma once

#include <cstdint>

#include "common_src/problem.h"

namespace convgrad::cuda {

struct Split {
  int64_t parts;
  int64_t length;  // terms per part; the last part may have fewer, or zero
};

// Returns where wgrad's kernels write unrounded sums for add_parts() to round, or null if there is one part,
// which the kernels round themselves. An unrounded result of one part is written to dw directly.
inline void* partials_of(const ConvProblem& p, int64_t parts, void* dw, void* workspace) {
  if (parts > 1) return workspace;
  return p.unrounded ? dw : nullptr;
}

// Returns the number of parts for wgrad's sum: `wanted`, but at most `most`, and no more than keep the
// partial sums below a twentieth of x and dy together; at least one.
int64_t wgrad_parts(const ConvProblem&, int64_t wanted, int64_t most);

Split wgrad_split(const ConvProblem&);       // for the tiled kernel
Split gemm_wgrad_split(const ConvProblem&);  // for the multistage kernel

// Reports whether wgrad runs over phases of the taps (common_src/phase.h): if inputs are dilated or most of
// them are padding.
bool filter_has_phases(const ConvProblem&);
// Returns the number of positions that a sum runs over; with phases, about the number that a tap of the
// largest phase meets.
int64_t filter_depth(const ConvProblem&);

}  // namespace convgrad::cuda
