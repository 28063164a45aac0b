// The 128-byte swizzle: 1024 bytes hold eight lines of 128 bytes, and the number of a line is xored to the
// numbers of its 16-byte chunks. It acts on addresses, so the pattern begins at multiples of 1024.
#pragma once

#include <cstddef>

namespace cuda_emulator {

inline constexpr size_t kLineBytes = 128, kChunkBytes = 16, kSwizzleBytes = 1024;

// Xors bits 7 to 9 of an offset in shared memory, which begins at a multiple of 1024, into its bits 4 to 6.
constexpr size_t swizzled(size_t offset) { return offset ^ (offset / 8 & 0x70); }

}  // namespace cuda_emulator
