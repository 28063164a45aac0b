// An operand of wgmma in shared memory: up to 256 rows (of b: columns) by 32 bytes of the depth, in swizzled
// lines of 128 bytes.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "cuda_emulator/counters.h"

namespace cuda_emulator {

inline constexpr unsigned kWgmmaDepthBytes = 32;

// The fields of a matrix descriptor, in bytes.
struct WgmmaOperand {
  size_t start, leading, stride;
  bool by_rows;  // a line holds rows at one depth instead of one row's depth
  unsigned rows, number_bytes;

  // Returns an error message, or an empty string.
  std::string decode(uint64_t descriptor, size_t shared_bytes);
  unsigned depth() const { return kWgmmaDepthBytes / number_bytes; }
  // Returns the numbers' bits, one row after another.
  std::vector<uint32_t> read(const unsigned char* shared) const;
  // Counts one read of the operand: the eight 16-byte lines of a core matrix are served together.
  void count(const unsigned char* shared, SharedTraffic&) const;

 private:
  // Returns the offset of a chunk: rows from `row` on at one depth, or one row from `depth` on.
  size_t offset_of(unsigned row, unsigned depth) const;
};

}  // namespace cuda_emulator
