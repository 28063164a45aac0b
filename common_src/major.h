// How a filter lies for the sum that reads it. As a matrix of a product it is K-major or MN-major, in the
// words of CUTLASS, where K is the index that is summed over, whatever letter the convolution has for it.
#pragma once

#include <cstdint>

namespace convgrad {

// Which index of a product's operand is contiguous in memory: the one that is summed over, or the other. The
// filter [spatial..., C/groups, K] is MN-major for fprop, which sums over c, and K-major for dgrad, which
// sums over k and meets the taps backwards.
enum class Major : int8_t { kK, kMN };

}  // namespace convgrad
