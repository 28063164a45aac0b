// The transforms of Winograd's minimal filtering F(4, 3) along one axis or two, for vectors of channels side
// by side (cpu_src/winograd/plan.h derives them).
#pragma once

#include <cstdint>

#include "common_src/number.h"
#include "cpu_src/isa.h"

namespace convgrad::cpu {

// Along a transformed axis: results of a tile, taps of the filter, points at which both are evaluated, which
// is also the number of inputs that a tile reads.
inline constexpr int kWinogradTile = 4, kWinogradTaps = 3, kWinogradPoints = 6;

// Every function handles `channels` channels that lie side by side. A patch, a tile or the taps along two
// axes are in row-major order. Points are point_step elements apart; whole vectors are read and written
// there.
template <typename T>
struct WinogradTransforms {
  int lanes;
  // v = C^T x: a patch of inputs, each given by a pointer, of which none may be null.
  void (*input)(const T* const* patch, int64_t channels, float* v, int64_t point_step);
  // d = E4 dy: a tile of the result's gradient, likewise.
  void (*output_grad)(const T* const* tile, int64_t channels, float* d, int64_t point_step);
  // u = E3 w: taps are tap_step elements apart, which may be negative.
  void (*filter)(const T* w, int64_t tap_step, int64_t channels, float* u, int64_t point_step);
  // y = E4^T m, then the bias and relu, where a result's pointer is not null. The results are of type T, or
  // float if `unrounded`.
  void (*output)(const float* m, int64_t point_step, int64_t channels, const T* bias, bool relu,
                 bool unrounded, void* const* tile);
  // dw = E3^T m, unrounded.
  void (*filter_grad)(const float* m, int64_t point_step, int64_t channels, float* dw, int64_t tap_step);
};

// Returns the transforms along `axes` axes, 1 or 2.
CONVGRAD_PER_ISA(template <typename T> const WinogradTransforms<T>& winograd_transforms(int axes))

// Writes the transpose of a block of `rows` rows and at most a vector of columns: dst[column * lanes + row],
// for `rows` up to the lanes; columns beyond get zeros.
template <typename T>
using TransposeBlock = void (*)(const T* src, int64_t row_step, int64_t rows, int64_t columns, float* dst);
CONVGRAD_PER_ISA(template <typename T> TransposeBlock<T> transpose_block())

}  // namespace convgrad::cpu
