// The part of an array that a TMA copy moves: the lines of its box, in the order in which they are stored in
// shared memory.
#pragma once

#include <cstddef>
#include <cstdint>

#include "encoded_map.h"

namespace cuda_emulator {

struct Box {
  EncodedMap map;
  int64_t at[kMaxRank];  // the first element; in im2col mode the first channel, base pixel and image
  int64_t offset[3];     // im2col: from a base pixel to the pixel that is read, W first
};

// The innermost extent of the box. What lies outside the array, at both ends, is filled with zeros.
struct BoxLine {
  const unsigned char* from;  // the first byte inside, or null if there is none
  size_t skipped, bytes;      // bytes of the line before it; bytes from it on
};

// Iterates over the lines.
class BoxLines {
 public:
  explicit BoxLines(const Box& box) : box_(box), left_(box.map.lines()) {}
  bool next(BoxLine&);

 private:
  BoxLine line_at(const int64_t (&index)[kMaxRank]) const;

  const Box& box_;
  int64_t left_;
  bool begun_ = false;
  int64_t place_[kMaxRank]{};  // within the box; in im2col mode the base pixel and image
};

}  // namespace cuda_emulator
