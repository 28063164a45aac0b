// Prefetches pixels that a later row will read or write, in the order of their addresses.
#pragma once

#include <cstdint>

namespace convgrad::cpu {

// Prefetches the first `bytes` of pixels [first, last), which are `step` bytes apart. Inlined, because the
// compiler would drop a call without another effect.
template <bool kWrite>
__attribute__((always_inline)) inline void prefetch_pixels(const void* pixels, int64_t step, int64_t bytes,
                                                           int64_t first, int64_t last) {
  constexpr int64_t kLine = 64;
  for (int64_t pixel = first; pixel < last; ++pixel) {
    const char* at = static_cast<const char*>(pixels) + pixel * step;
    for (int64_t byte = 0; byte < bytes; byte += kLine) __builtin_prefetch(at + byte, kWrite, 2);
  }
}

}  // namespace convgrad::cpu
