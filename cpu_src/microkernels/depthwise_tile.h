// The inner loops of depthwise convolutions, in which every channel meets its own filter alone: a vector's
// lanes are channels, and x, dy and the filter are read where they lie.
#pragma once

#include <cstdint>

#include "common_src/number.h"
#include "cpu_src/isa.h"

namespace convgrad::cpu {

// A tap: where its source lies, from that of the tile, and its channels in the filter or in its gradient.
struct DepthwiseTap {
  int64_t source, filter;
};

template <typename T>
struct DepthwiseTiles {
  // result[m, c] = sum over taps of source[m * source_step + tap.source + c] * filter[tap.filter + c], then
  // the bias and relu, for each of `channels` channels. Results are of type T, or Sum<T> if `unrounded`.
  using Pixels = void (*)(const T* source, int64_t source_step, const DepthwiseTap* taps, int64_t count,
                          const T* filter, const T* bias, bool relu, int64_t channels, void* result,
                          int64_t result_step, bool unrounded);
  // sums[tap.filter + c] += sum over positions j of x[j * x_step + tap.source + c] * dy[j * dy_step + c].
  using Taps = void (*)(const T* x, int64_t x_step, const DepthwiseTap* taps, const T* dy, int64_t dy_step,
                        int64_t count, int64_t channels, Sum<T>* sums);

  // The same where taps come in rows of kWindow[..] neighbours, as far apart as the pixels: each source is
  // loaded once for all of its row. `rows` are the first taps of `count` rows, in steps of a row;
  // `filter_step` leads from one tap of a row to the next, in the filter or in its gradient.
  using WindowPixels = void (*)(const T* source, int64_t source_step, const DepthwiseTap* rows, int64_t count,
                                const T* filter, int64_t filter_step, const T* bias, bool relu,
                                int64_t channels, void* result, int64_t result_step, bool unrounded);
  using WindowTaps = void (*)(const T* x, int64_t x_step, const DepthwiseTap& row, int64_t filter_step,
                              const T* dy, int64_t dy_step, int64_t count, int64_t channels, Sum<T>* sums);

  // The sizes for which there is a function, the largest first; the last is 1.
  static constexpr int kPixels[] = {8, 4, 2, 1};
  static constexpr int kTaps[] = {9, 7, 5, 3, 2, 1};
  static constexpr int kWindow[] = {3, 5, 7};
  Pixels pixels[4];
  Taps taps[6];
  WindowPixels window_pixels[3][2];  // of the first two sizes of kPixels
  WindowTaps window_taps[3];
};

CONVGRAD_PER_ISA(template <typename T> const DepthwiseTiles<T>& depthwise_tiles())

}  // namespace convgrad::cpu
