// An operand of wgmma: up to 256 rows (of b: columns) by 16 of the depth, in lines of 128 swizzled bytes.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "cuda_emulator/counters.h"

namespace cuda_emulator {

inline constexpr unsigned kWgmmaDepth = 16;

// The fields of a matrix descriptor, in bytes.
struct WgmmaOperand {
  size_t start, leading, stride;
  bool by_rows;  // a line holds 64 rows at one depth, and not 64 of a row's depth
  unsigned rows;

  // What is wrong with it, or nothing.
  std::string decode(uint64_t descriptor, size_t shared_bytes);
  // The numbers, one row after another.
  void read(const unsigned char* shared, std::vector<uint16_t>& numbers) const;
  // What it costs to read it once: the eight 16-byte lines of a core matrix are served together.
  void count(const unsigned char* shared, SharedTraffic&) const;

 private:
  // Of eight numbers that are neighbours: rows `row` and on at one depth, or one row from `depth` on.
  size_t offset_of(unsigned row, unsigned depth) const;
};

}  // namespace cuda_emulator
