// Compares TMA with loops over its definition: a tile's contents after a load, swizzle included, are computed
// here from the pixel's number.
#include <cstdint>
#include <vector>

#include "check.h"
#include "cuda_src/arch/encode.h"
#include "cuda_src/arch/ptx_sm90.cuh"
#include "cuda_src/arch/shared_memory.cuh"

using namespace selftest;
using namespace convgrad::cuda;
using convgrad::DType;

namespace {

constexpr int kBarrierBytes = 1024;  // before the tile

// One thread loads a tile; all threads copy it out.
template <int kRank>
__global__ void load_tile(const __grid_constant__ TensorMap map, const int* at, const int* offset, int bytes,
                          unsigned char* out) {
  uint64_t* barrier = shared_memory<uint64_t>();
  unsigned char* tile = shared_memory<unsigned char>() + kBarrierBytes;
  if (threadIdx.x == 0) {
    mbarrier_init(barrier, 1);
    mbarrier_init_fence();
    tma_prefetch(map);
  }
  __syncthreads();
  if (threadIdx.x == 0) {
    mbarrier_arrive_expect(barrier, static_cast<unsigned>(bytes));
    int from[kRank];
    for (int d = 0; d < kRank; ++d) from[d] = at[d];
    if constexpr (kRank >= 3) {
      if (offset) {
        int by[kRank - 2];
        for (int d = 0; d < kRank - 2; ++d) by[d] = offset[d];
        tma_load_im2col<kRank>(tile, map, barrier, from, by);
      } else if constexpr (kRank == 3) {
        tma_load<kRank>(tile, map, barrier, from);
      }
    } else {
      tma_load<kRank>(tile, map, barrier, from);
    }
  }
  mbarrier_wait(barrier, 0);
  for (int i = static_cast<int>(threadIdx.x); i < bytes; i += static_cast<int>(blockDim.x)) out[i] = tile[i];
}

// An array in memory whose pixels are some bytes apart.
struct Array {
  Array(std::vector<int64_t> sizes, int64_t channel_pitch) : size(std::move(sizes)), stride{2} {
    for (size_t d = 1; d < size.size(); ++d)
      stride.push_back(d == 1 ? 2 * channel_pitch : stride.back() * size[d - 1]);
    data.resize(static_cast<size_t>(stride.back() * size.back()) / 16 + 1);
    uint16_t* const numbers = reinterpret_cast<uint16_t*>(data.data());
    for (size_t i = 0; i < data.size() * 8; ++i) numbers[i] = static_cast<uint16_t>(i * 40503u % 65521u + 1);
  }
  // Returns zero outside.
  uint16_t number(const std::vector<int64_t>& index) const {
    int64_t byte = 0;
    for (size_t d = 0; d < size.size(); ++d) {
      if (index[d] < 0 || index[d] >= size[d]) return 0;
      byte += index[d] * stride[d];
    }
    return reinterpret_cast<const uint16_t*>(data.data())[byte / 2];
  }
  TensorArray described() const {
    TensorArray array{DType::kBF16, data.data(), static_cast<int>(size.size()), {}, {}};
    for (size_t d = 0; d < size.size(); ++d) {
      array.size[d] = size[d];
      array.stride_bytes[d] = stride[d];
    }
    return array;
  }

  std::vector<int64_t> size, stride;
  std::vector<uint4> data;
};

// Returns number e of line l, in a tile that begins at a multiple of 1024.
uint16_t tile_number(const std::vector<uint16_t>& tile, int l, int e) {
  return tile[l * 64 + ((e / 8) ^ (l % 8)) * 8 + e % 8];
}

template <int kRank>
std::vector<uint16_t> loaded(const TensorMap& map, const std::vector<int>& at, const int* offset, int lines) {
  std::vector<uint16_t> out(static_cast<size_t>(lines) * 64);
  run(load_tile<kRank>, 1, 64, static_cast<size_t>(kBarrierBytes + lines * 128), map, at.data(), offset,
      lines * 128, reinterpret_cast<unsigned char*>(out.data()));
  return out;
}

TensorMap encoded(const TiledMap& tiled) {
  TensorMap map;
  check_equal(static_cast<int>(encode(tiled, &map)), 0, "error of encode");
  return map;
}
TensorMap encoded(const Im2colMap& im2col) {
  TensorMap map;
  check_equal(static_cast<int>(encode(im2col, &map)), 0, "error of encode");
  return map;
}

}  // namespace

TEST(tma_loads_tiles_and_zeros_around_the_array) {
  const Array array({70, 37}, 72);
  const TensorMap map = encoded(TiledMap{array.described(), {64, 24}});
  for (const std::vector<int>& at :
       {std::vector<int>{0, 0}, {6, 13}, {-3, -5}, {40, 30}, {64, 0}, {200, 0}, {0, -24}, {0, 37}}) {
    const std::vector<uint16_t> tile = loaded<2>(map, at, nullptr, 24);
    for (int l = 0; l < 24; ++l)
      for (int e = 0; e < 64; ++e)
        check_equal(tile_number(tile, l, e), array.number({at[0] + e, at[1] + l}), "number of a tile");
  }
}

TEST(tma_loads_tiles_of_three_dimensions) {
  const Array array({64, 5, 6}, 64);
  const TensorMap map = encoded(TiledMap{array.described(), {64, 3, 4}});
  for (const std::vector<int>& at : {std::vector<int>{0, 0, 0}, {8, 1, 2}, {0, -1, 4}}) {
    const std::vector<uint16_t> tile = loaded<3>(map, at, nullptr, 12);
    for (int l = 0; l < 12; ++l)
      for (int e = 0; e < 64; ++e)
        check_equal(tile_number(tile, l, e), array.number({at[0] + e, at[1] + l % 3, at[2] + l / 3}),
                    "number of a tile");
  }
}

// Lists all base pixels of all images in order, from the images' definition: a tile is `pixels` of them.
template <int kRank>
static void check_im2col(const Array& array, Im2colMap im2col, const std::vector<int>& taps) {
  constexpr int kAxes = kRank - 2;
  im2col.array = array.described();
  im2col.channels = 64;
  const TensorMap map = encoded(im2col);
  std::vector<std::vector<int>> pixels;  // W, H, D, N
  std::vector<int> pixel(kAxes + 1);
  const auto visit = [&](auto&& self, int axis) -> void {
    if (axis < 0) return pixels.push_back(pixel);
    const int first = axis == kAxes ? 0 : im2col.lower[axis], step = axis == kAxes ? 1 : im2col.step[axis];
    const int end = static_cast<int>(array.size[axis + 1]) + (axis == kAxes ? 2 : im2col.upper[axis]);
    for (int at = first; at < end; at += step) {
      pixel[axis] = at;
      self(self, axis - 1);
    }
  };
  visit(visit, kAxes);  // two images past the last: their pixels are zeros
  const size_t last = pixels.size() - static_cast<size_t>(im2col.pixels);
  for (size_t begin = 0; begin <= last; begin += 7)
    for (const int channel : {0, 16}) {
      std::vector<int> at{channel};
      at.insert(at.end(), pixels[begin].begin(), pixels[begin].end());
      const std::vector<uint16_t> tile = loaded<kRank>(map, at, taps.data(), im2col.pixels);
      for (int l = 0; l < im2col.pixels; ++l)
        for (int e = 0; e < 64; ++e) {
          std::vector<int64_t> index{channel + e};
          for (int axis = 0; axis <= kAxes; ++axis)
            index.push_back(pixels[begin + l][axis] + (axis < kAxes ? taps[axis] : 0));
          check_equal(tile_number(tile, l, e), array.number(index), "number of a pixel");
        }
    }
}

TEST(tma_im2col_of_one_axis) {
  check_im2col<3>(Array({70, 9, 3}, 72), {{}, {-2}, {1}, {1}, 0, 8}, {3});
  check_im2col<3>(Array({64, 11, 2}, 64), {{}, {-1}, {-2}, {3}, 0, 5}, {0});
}
TEST(tma_im2col_of_two_axes) {
  check_im2col<4>(Array({70, 5, 4, 2}, 80), {{}, {-1, -1}, {-1, -1}, {1, 1}, 0, 16}, {2, 1});
  check_im2col<4>(Array({64, 7, 6, 2}, 64), {{}, {-3, 0}, {1, -2}, {2, 3}, 0, 11}, {1, 2});
}
TEST(tma_im2col_of_three_axes) {
  check_im2col<5>(Array({64, 4, 3, 3, 2}, 64), {{}, {-1, -1, -1}, {-1, 0, -1}, {1, 1, 1}, 0, 24}, {2, 0, 1});
  check_im2col<5>(Array({40, 5, 4, 3, 2}, 40), {{}, {0, -2, 0}, {0, 1, -1}, {2, 2, 1}, 0, 9}, {0, 3, 1});
}
