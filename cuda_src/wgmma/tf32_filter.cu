#include "common_src/integers.h"
#include "cuda_src/arch/launch.cuh"
#include "cuda_src/arch/ptx.cuh"
#include "cuda_src/arch/shared_memory.cuh"
#include "cuda_src/wgmma/tf32_filter.h"

namespace convgrad::cuda {
namespace {

__device__ float rounded_to_tf32(float value) { return __uint_as_float(to_tf32(value)); }

__global__ void round_kernel(const float* w, float* rounded, int64_t count) {
  for (int64_t e = first_element(); e < count; e += element_step()) rounded[e] = rounded_to_tf32(w[e]);
}

constexpr int kSide = 32, kRows = 8;  // a tile is kSide by kSide, copied kRows lines at a time

// Transposes tiles through shared memory, so that reads and writes both run along lines. The padding puts a
// column of the tile into different banks.
__global__ void transpose_kernel(const float* w, float* rounded, int64_t group_in, int64_t out_channels) {
  auto& tile = *shared_memory<float[kSide][kSide + 1]>();
  const int64_t k_tiles = tiles_over(out_channels, kSide), c_tiles = tiles_over(group_in, kSide);
  const int64_t first_k = blockIdx.x % k_tiles * kSide, first_c = blockIdx.x / k_tiles % c_tiles * kSide;
  const int64_t r = blockIdx.x / k_tiles / c_tiles * group_in * out_channels;
  const int x = static_cast<int>(threadIdx.x) % kSide, y = static_cast<int>(threadIdx.x) / kSide;
  for (int line = y; line < kSide; line += kRows)
    if (first_c + line < group_in && first_k + x < out_channels)
      tile[line][x] = rounded_to_tf32(w[r + (first_c + line) * out_channels + first_k + x]);
  __syncthreads();
  for (int line = y; line < kSide; line += kRows)
    if (first_k + line < out_channels && first_c + x < group_in)
      rounded[r + (first_k + line) * group_in + first_c + x] = tile[x][line];
}

}  // namespace

cudaError_t round_to_tf32(const float* w, float* rounded, int64_t count, cudaStream_t stream) {
  return launch_elements(round_kernel, count, stream, w, rounded, count);
}

cudaError_t transpose_to_tf32(const float* w, float* rounded, int64_t taps, int64_t group_in,
                              int64_t out_channels, cudaStream_t stream) {
  const int64_t blocks = taps * tiles_over(group_in, kSide) * tiles_over(out_channels, kSide);
  return launch_blocks(transpose_kernel, blocks, kSide * kRows, sizeof(float) * kSide * (kSide + 1), stream,
                       w, rounded, group_in, out_channels);
}

}  // namespace convgrad::cuda
