// Tests that a tensor map beyond the hardware's limits is refused with the same error.
#include <cstdint>

#include "check.h"
#include "cuda_src/arch/encode.h"

using namespace selftest;
using namespace convgrad::cuda;
using convgrad::DType;

namespace {

alignas(16) unsigned char memory[32];

TiledMap good_tiles() { return {{DType::kBF16, memory, 3, {64, 5, 7}, {0, 128, 640}}, {64, 256, 256}}; }
Im2colMap good_pixels() {
  return {
      {DType::kBF16, memory, 4, {64, 5, 7, 2}, {0, 128, 640, 4480}}, {-128, 0}, {127, -6}, {1, 8}, 64, 1024};
}

template <typename Map>
cudaError_t encoded(const Map& map) {
  TensorMap to;
  return encode(map, &to);
}

template <typename Map, typename Change>
void check_refused(Map map, const char* what, Change change) {
  check(encoded(map) == cudaSuccess, "what is right is refused");
  change(map);
  check(encoded(map) == cudaErrorInvalidValue, std::string("is not refused: ") + what);
}

// Tests what both kinds of map refuse.
template <typename Map>
void check_array_limits(const Map& good) {
  check_refused(good, "an address off by 8", [](Map& m) { m.array.base = memory + 8; });
  check_refused(good, "no address", [](Map& m) { m.array.base = nullptr; });
  check_refused(good, "rank 6", [](Map& m) { m.array.rank = 6; });
  check_refused(good, "rank 0", [](Map& m) { m.array.rank = 0; });
  check_refused(good, "an empty dimension", [](Map& m) { m.array.size[2] = 0; });
  check_refused(good, "2^32 + 1 elements", [](Map& m) { m.array.size[1] = (int64_t{1} << 32) + 1; });
  check_refused(good, "a stride of 120", [](Map& m) { m.array.stride_bytes[1] = 120; });
  check_refused(good, "a stride of 2^40", [](Map& m) { m.array.stride_bytes[2] = int64_t{1} << 40; });
  check_refused(good, "a stride of 0", [](Map& m) { m.array.stride_bytes[1] = 0; });
  check_refused(good, "a stride below 0", [](Map& m) { m.array.stride_bytes[1] = -128; });
  Map largest = good;
  largest.array.size[1] = int64_t{1} << 32;
  largest.array.stride_bytes[2] = (int64_t{1} << 40) - 16;
  check(encoded(largest) == cudaSuccess, "the largest array is refused");
}

}  // namespace

TEST(tensor_maps_of_tiles_have_limits) {
  check_array_limits(good_tiles());
  check_refused(good_tiles(), "257 in a box", [](TiledMap& m) { m.box[1] = 257; });
  check_refused(good_tiles(), "0 in a box", [](TiledMap& m) { m.box[2] = 0; });
  check_refused(good_tiles(), "136 bytes a line", [](TiledMap& m) { m.box[0] = 68; });
  check_refused(good_tiles(), "144 bytes a line", [](TiledMap& m) { m.box[0] = 72; });
  check_refused(good_tiles(), "8 bytes a line", [](TiledMap& m) { m.box[0] = 4; });
}

TEST(tensor_maps_of_pixels_have_limits) {
  check_array_limits(good_pixels());
  check_refused(good_pixels(), "rank 2", [](Im2colMap& m) { m.array.rank = 2; });
  check_refused(good_pixels(), "a corner at -129", [](Im2colMap& m) { m.lower[0] = -129; });
  check_refused(good_pixels(), "a corner at 128", [](Im2colMap& m) { m.upper[0] = 128; });
  check_refused(good_pixels(), "no base pixel", [](Im2colMap& m) { m.upper[1] = -7; });
  check_refused(good_pixels(), "a step of 0", [](Im2colMap& m) { m.step[0] = 0; });
  check_refused(good_pixels(), "a step of 9", [](Im2colMap& m) { m.step[1] = 9; });
  check_refused(good_pixels(), "72 channels", [](Im2colMap& m) { m.channels = 72; });
  check_refused(good_pixels(), "60 channels", [](Im2colMap& m) { m.channels = 60; });
  check_refused(good_pixels(), "1025 pixels", [](Im2colMap& m) { m.pixels = 1025; });
  check_refused(good_pixels(), "no pixels", [](Im2colMap& m) { m.pixels = 0; });
}

TEST(corners_have_fewer_bits_the_more_axes_there_are) {
  for (int rank = 3; rank <= 5; ++rank) {
    const int end = rank == 3 ? 32768 : rank == 4 ? 128 : 16;
    Im2colMap map = {{DType::kF16, memory, rank, {64, 9, 9, 9, 9}, {0, 128, 1152, 10368, 93312}},
                     {-end, -end, -end},
                     {end - 1, end - 1, end - 1},
                     {1, 1, 1},
                     64,
                     64};
    check_refused(map, "a lower corner", [&](Im2colMap& m) { m.lower[rank - 3] = -end - 1; });
    check_refused(map, "an upper corner", [&](Im2colMap& m) { m.upper[rank - 3] = end; });
  }
}
