// Quotients of integers, rounded down or up.
#pragma once

#include <cstdint>

#include "common_src/problem.h"

namespace convgrad {

// The greatest integer <= a / b, for b > 0.
CONVGRAD_HD constexpr int64_t divide_down(int64_t a, int64_t b) { return a / b - (a % b < 0); }

// The least integer >= a / b, for b > 0.
CONVGRAD_HD constexpr int64_t divide_up(int64_t a, int64_t b) { return a / b + (a % b > 0); }

}  // namespace convgrad
