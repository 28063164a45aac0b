// The problem without what cannot matter: taps at either end of the filter that no output meets on the input,
// as of a filter that is much longer than a padded input; and steps along axes of a single position.
#pragma once

#include <cstdint>

#include "common_src/problem.h"

namespace convgrad::cpu {

struct MetTaps {
  ConvProblem problem;   // with the taps that are left
  int64_t in_front = 0;  // numbers of the given filter before the one that is left
};

// Only of the outermost axis with several taps, where what is left is one stretch of memory. One tap at least
// is left. The sums that are left have their terms in the same order.
MetTaps met_taps(const ConvProblem& problem);

}  // namespace convgrad::cpu
