// How a filter lies in memory for the sum that reads it. Seen as a matrix of a product it is K-major or
// MN-major, in CUTLASS's terms, where K is the index that is summed over, whatever its letter in the
// convolution.
#pragma once

#include <cstdint>

namespace convgrad {

// The index of a product's operand that is contiguous in memory: the one that is summed over (K), or the
// other (MN). The filter [spatial..., C/groups, K] is MN-major for fprop, which sums over c, and K-major for
// dgrad, which sums over k and meets the taps in reverse.
enum class Major : int8_t { kK, kMN };

}  // namespace convgrad
