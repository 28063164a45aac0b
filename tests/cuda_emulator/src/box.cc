#include "box.h"

#include <algorithm>

namespace cuda_emulator {

BoxLine BoxLines::line_at(const int64_t (&index)[kMaxRank]) const {
  const EncodedMap& map = box_.map;
  const unsigned char* from = map.base;
  for (int d = 1; d < map.rank; ++d) {
    if (index[d] < 0 || index[d] >= map.size(d)) return {nullptr, 0, 0};
    from += static_cast<uint64_t>(index[d]) * map.stride[d - 1];
  }
  const int64_t first = std::max<int64_t>(index[0], 0), end = std::min(index[0] + map.box[0], map.size(0));
  if (first >= end) return {nullptr, 0, 0};
  return {from + first * map.element_bytes, static_cast<size_t>((first - index[0]) * map.element_bytes),
          static_cast<size_t>((end - first) * map.element_bytes)};
}

bool BoxLines::next(BoxLine& line) {
  if (left_-- == 0) return false;
  const EncodedMap& map = box_.map;
  int64_t index[kMaxRank];
  if (map.is_im2col()) {
    if (!begun_) std::copy(box_.at, box_.at + map.rank, place_);
    for (int axis = 0; begun_ && axis <= map.spatial(); ++axis) {
      int64_t& pixel = place_[axis + 1];
      const bool image = axis == map.spatial();
      pixel += image ? 1 : map.step[axis];
      if (image || pixel <= map.last_pixel(axis)) break;
      pixel = map.first_pixel(axis);
    }
    std::copy(place_, place_ + map.rank, index);
    for (int axis = 0; axis < map.spatial(); ++axis) index[axis + 1] += box_.offset[axis];
  } else {
    for (int d = 1; begun_ && d < map.rank; ++d) {
      if (++place_[d] < map.box[d]) break;
      place_[d] = 0;
    }
    for (int d = 0; d < map.rank; ++d) index[d] = box_.at[d] + place_[d];
  }
  begun_ = true;
  line = line_at(index);
  return true;
}

}  // namespace cuda_emulator
