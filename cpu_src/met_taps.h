// Removes what cannot matter from a problem: taps at either end of the filter that tie no output to an input,
// as when a filter is much longer than a padded input; and steps along axes of a single position.
#pragma once

#include <cstdint>

#include "common_src/problem.h"

namespace convgrad::cpu {

struct MetTaps {
  ConvProblem problem;   // with the remaining taps
  int64_t in_front = 0;  // numbers of the given filter before the remaining ones
};

// Removes taps of the outermost axis with several taps only, so that the rest is contiguous in memory. At
// least one tap remains. The remaining sums have their terms in the same order.
MetTaps met_taps(const ConvProblem& problem);

}  // namespace convgrad::cpu
