// What the kernels for few input channels share: tiles of positions, their patches of x in shared memory, and
// the places of a window's numbers in a patch.
#pragma once

#include <cstdint>

#include "cuda_src/arch/ptx.cuh"
#include "cuda_src/arch/vector_access.cuh"
#include "cuda_src/block/math.cuh"
#include "cuda_src/block/operand.cuh"
#include "cuda_src/divisor.cuh"
#include "cuda_src/few_channels/plan.h"

namespace convgrad::cuda {

// A dtype for the plan, which depends on its size alone.
template <typename Stored>
inline constexpr DType kStoredDType = sizeof(Stored) == 8   ? DType::kF64
                                      : sizeof(Stored) == 4 ? DType::kF32
                                                            : DType::kBF16;

// The plan, and what a launch adds to it.
struct FewChannelsProblem : FewChannelsPlan {
  int copy_bytes;  // per copy: 16, 8 or 4, or 2 for copies number by number
  Divisor row_copies, extent1, tiles_along[kAxes];

  FewChannelsProblem() = default;
  FewChannelsProblem(const FewChannelsPlan& plan, const void* x, int64_t bytes) : FewChannelsPlan(plan) {
    // Rows follow each other without a gap, so all of them begin at multiples of what divides their length.
    const int64_t row_bytes = static_cast<int64_t>(axis[kAxes - 1].input) * channels * bytes;
    const auto from = static_cast<int64_t>(reinterpret_cast<uintptr_t>(x) % 16);
    copy_bytes = 16;
    while (copy_bytes > bytes && (row_bytes % copy_bytes != 0 || from % copy_bytes != 0)) copy_bytes /= 2;
    row_copies = Divisor(static_cast<int64_t>(row_chunks) * 16 / copy_bytes);
    extent1 = Divisor(axis[1].extent);
    for (int a = 0; a < kAxes; ++a) tiles_along[a] = Divisor(axis[a].tiles > 0 ? axis[a].tiles : 1);
  }
};

// A tile of positions.
struct FewChannelsTile {
  int n, first[kAxes];

  __device__ FewChannelsTile(const FewChannelsProblem& p, int tile) {
#pragma unroll
    for (int a = kAxes - 1; a >= 0; --a) {
      const int rest = tile;
      tile = p.tiles_along[a].quotient(rest);
      first[a] = (rest - tile * p.tiles_along[a].value()) * p.axis[a].tile;
    }
    n = tile;
  }

  // Returns the flat (n,o) of the tile's position q, or kNone.
  __device__ int64_t position(const FewChannelsProblem& p, int q) const {
    int64_t flat = n;
    int place[kAxes];
    split_position(p, q, place);
    bool there = true;
#pragma unroll
    for (int a = 0; a < kAxes; ++a) {
      const int o = first[a] + place[a];
      there = there && o < p.axis[a].output;
      flat = flat * p.axis[a].output + o;
    }
    return there ? flat : kNone;
  }

  __device__ static void split_position(const FewChannelsProblem& p, int q, int (&place)[kAxes]) {
    const int row = p.axis[2].tile, column = p.axis[1].tile;  // powers of two
    place[2] = q & (row - 1);
    q /= row;
    place[1] = q & (column - 1);
    place[0] = q / column;
  }
};

// Returns where in a patch the window of the tile's position q begins.
__device__ inline int window_at(const FewChannelsProblem& p, int q) {
  int place[kAxes];
  FewChannelsTile::split_position(p, q, place);
  const int row = place[0] * p.axis[0].stride * p.axis[1].extent + place[1] * p.axis[1].stride;
  return row * p.pitch + place[2] * p.step + p.shift;
}

// A slot of the depth: the number of a window that it holds (c fastest), or -1, and its distance from the
// window's start. Slots are read in pairs or one by one.
struct FewChannelsSlot {
  int depth, offset;
};

template <bool kPaired>
__device__ inline FewChannelsSlot slot_at(const FewChannelsProblem& p, int slot) {
  const int tap_rows = p.depth / p.run;
  int row, in_run, offset;
  bool there;
  if constexpr (kPaired) {
    // Octets are ordered by column: the first octets of all rows, then the second ones, and so on,
    // alternately from the first row to the last and back. So consecutive octets belong to consecutive rows
    // or to one row. Slots past the last octet are still read, though not used; they repeat the last octet,
    // which costs nothing.
    const bool past = slot / 8 >= p.octets;
    const int octet = past ? p.octets - 1 : slot / 8, column = octet / tap_rows;
    row = octet % tap_rows;
    if (column % 2 != 0) row = tap_rows - 1 - row;
    offset = column * 8 + slot % 8;
    in_run = offset - p.lead;
    there = !past && in_run >= 0 && in_run < p.run;
  } else {
    row = slot / p.run;
    in_run = slot % p.run;
    offset = in_run / p.channels * p.axis[2].filter_dilation * p.channels + in_run % p.channels + p.lead;
    there = slot < p.depth;
  }
  if (!kPaired && !there) return {-1, 0};
  const int r0 = row / p.axis[1].taps, r1 = row % p.axis[1].taps;
  const int patch_row = r0 * p.axis[0].filter_dilation * p.axis[1].extent + r1 * p.axis[1].filter_dilation;
  return {there ? row * p.run + in_run : -1, patch_row * p.pitch + offset};
}

// Starts to copy a tile's patch. Each copy lies either entirely within a row of x or entirely outside; copies
// outside, the padding, become zeros.
template <int kBytes, typename Stored>
__device__ __forceinline__ void copy_patch(const FewChannelsProblem& p, const FewChannelsTile& tile,
                                           const Stored* x, Stored* patch) {
  constexpr int kNumbers = kBytes / sizeof(Stored);
  const int first0 = tile.first[0] * p.axis[0].stride - p.axis[0].pad_lo;
  const int first1 = tile.first[1] * p.axis[1].stride - p.axis[1].pad_lo;
  const int first = tile.first[2] * p.step - p.axis[2].pad_lo * p.channels - p.lead - p.shift;
  const int row_numbers = p.axis[2].input * p.channels;
  const int copies = p.rows * p.row_copies.value();
  for (int at = static_cast<int>(threadIdx.x); at < copies; at += static_cast<int>(blockDim.x)) {
    int in_row = at;
    const int row = p.row_copies.split(in_row);
    int i1 = row;
    const int i0 = p.extent1.split(i1) + first0;
    i1 += first1;
    const int number = first + in_row * kNumbers;
    const bool there = i0 >= 0 && i0 < p.axis[0].input && i1 >= 0 && i1 < p.axis[1].input && number >= 0 &&
                       number < row_numbers;
    const int64_t x_row = (static_cast<int64_t>(tile.n) * p.axis[0].input + i0) * p.axis[1].input + i1;
    const Stored* from = there ? x + x_row * row_numbers + number : x;
    Stored* to = patch + row * p.pitch + in_row * kNumbers;
    if constexpr (kBytes >= 4)
      cp_async<kBytes>(to, from, there);
    else
      *to = there ? *from : Stored{};
  }
}

template <typename Stored>
__device__ __forceinline__ void copy_patch(const FewChannelsProblem& p, const FewChannelsTile& tile,
                                           const Stored* x, Stored* patch) {
  if (p.copy_bytes == 16)
    copy_patch<16>(p, tile, x, patch);
  else if (p.copy_bytes == 8)
    copy_patch<8>(p, tile, x, patch);
  else if constexpr (sizeof(Stored) == 4)
    copy_patch<4>(p, tile, x, patch);
  else if constexpr (sizeof(Stored) == 2) {
    if (p.copy_bytes == 4)
      copy_patch<4>(p, tile, x, patch);
    else
      copy_patch<2>(p, tile, x, patch);
  }
}

}  // namespace convgrad::cuda
