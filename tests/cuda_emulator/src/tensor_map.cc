// Replaces cuda_src/arch/encode.cc, and rejects what cuTensorMapEncodeTiled and cuTensorMapEncodeIm2col
// reject according to their documentation.
#include <cstring>

#include "cuda_src/arch/encode.h"
#include "encoded_map.h"
#include "error.h"
#include "swizzle.h"

namespace convgrad::cuda {
namespace {

using cuda_emulator::EncodedMap;

constexpr int64_t kMostElements = int64_t{1} << 32, kStrideEnd = int64_t{1} << 40, kAlignment = 16;
constexpr int kMostInBox = 256, kMostPixels = 1024, kMostStep = 8;

constexpr bool within(int64_t value, int64_t least, int64_t most) { return value >= least && value <= most; }

// Encodes type, address, sizes and strides, which both modes have.
bool encode_array(const TensorArray& array, int least_rank, EncodedMap& encoded) {
  if (!within(static_cast<int>(array.dtype), 0, 3) || !within(array.rank, least_rank, kMaxTensorRank))
    return false;
  if (!array.base || reinterpret_cast<uintptr_t>(array.base) % kAlignment != 0) return false;
  encoded.rank = array.rank;
  encoded.base = static_cast<const unsigned char*>(array.base);
  encoded.element_bytes = static_cast<uint8_t>(bytes_of(array.dtype));
  for (int d = 0; d < array.rank; ++d) {
    if (!within(array.size[d], 1, kMostElements)) return false;
    encoded.last[d] = static_cast<uint32_t>(array.size[d] - 1);
    if (d == 0) continue;
    const int64_t stride = array.stride_bytes[d];
    if (!within(stride, kAlignment, kStrideEnd - 1) || stride % kAlignment != 0) return false;
    encoded.stride[d - 1] = static_cast<uint64_t>(stride);
  }
  return true;
}

bool fits_swizzle(int64_t line_bytes) {
  return line_bytes % kAlignment == 0 && line_bytes <= int64_t{cuda_emulator::kLineBytes};
}

// The more axes, the fewer bits each has for its offset.
int corner_end(int rank) { return rank == 3 ? 1 << 15 : rank == 4 ? 1 << 7 : 1 << 4; }

bool encode_map(const TiledMap& map, EncodedMap& encoded) {
  encoded.kind = cuda_emulator::kTiledMap;
  if (!encode_array(map.array, 1, encoded)) return false;
  for (int d = 0; d < map.array.rank; ++d) {
    if (!within(map.box[d], 1, kMostInBox)) return false;
    encoded.box[d] = static_cast<uint16_t>(map.box[d]);
  }
  return fits_swizzle(encoded.line_bytes());
}

bool encode_map(const Im2colMap& map, EncodedMap& encoded) {
  encoded.kind = cuda_emulator::kIm2colMap;
  if (!encode_array(map.array, 3, encoded)) return false;
  const int end = corner_end(map.array.rank);
  for (int axis = 0; axis < map.array.rank - 2; ++axis) {
    if (!within(map.lower[axis], -end, end - 1) || !within(map.upper[axis], -end, end - 1)) return false;
    if (!within(map.step[axis], 1, kMostStep)) return false;
    encoded.lower[axis] = static_cast<int16_t>(map.lower[axis]);
    encoded.upper[axis] = static_cast<int16_t>(map.upper[axis]);
    encoded.step[axis] = static_cast<uint8_t>(map.step[axis]);
    if (encoded.last_pixel(axis) < encoded.first_pixel(axis)) return false;  // no base pixel
  }
  if (!within(map.channels, 1, kMostInBox) || !within(map.pixels, 1, kMostPixels)) return false;
  encoded.box[0] = static_cast<uint16_t>(map.channels);
  encoded.box[1] = static_cast<uint16_t>(map.pixels);
  return fits_swizzle(encoded.line_bytes());
}

template <typename Map>
cudaError_t encode_checked(const Map& map, TensorMap* to) {
  EncodedMap encoded{};
  if (!to || reinterpret_cast<uintptr_t>(to) % alignof(TensorMap) != 0 || !encode_map(map, encoded))
    return cuda_emulator::remember(cudaErrorInvalidValue);
  *to = {};
  std::memcpy(to->bytes, &encoded, sizeof encoded);
  return cudaSuccess;
}

}  // namespace

bool tensor_maps_available() { return true; }

cudaError_t encode(const TiledMap& map, TensorMap* to) { return encode_checked(map, to); }
cudaError_t encode(const Im2colMap& map, TensorMap* to) { return encode_checked(map, to); }

}  // namespace convgrad::cuda
