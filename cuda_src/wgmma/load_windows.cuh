// Loads windows with TMA's im2col mode for arrays of one to three spatial axes.
#pragma once

#include <cstdint>

#include "cuda_src/arch/ptx_sm90.cuh"

namespace convgrad::cuda {

// Positions and offsets are given for axes 0 to 2; the array has the last `axes` of them.
__device__ __forceinline__ void load_windows(void* to, const TensorMap& map, uint64_t* full, int axes, int c,
                                             const int (&i)[kAxes], int n, const int (&offset)[kAxes]) {
  if (axes == 1)
    tma_load_im2col<3>(to, map, full, {c, i[2], n}, {offset[2]});
  else if (axes == 2)
    tma_load_im2col<4>(to, map, full, {c, i[2], i[1], n}, {offset[2], offset[1]});
  else
    tma_load_im2col<5>(to, map, full, {c, i[2], i[1], i[0], n}, {offset[2], offset[1], offset[0]});
}

}  // namespace convgrad::cuda
