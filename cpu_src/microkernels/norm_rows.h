// Batch norm's passes over rows of channels.
#pragma once

#include <cstdint>

#include "common_src/batch_norm.h"
#include "common_src/number.h"
#include "cpu_src/isa.h"

namespace convgrad::cpu {

inline constexpr int64_t kNormRows = 8;    // rows that are added up in registers
inline constexpr int64_t kNormBlock = 64;  // rows that are added up in the type of sums, then in double
inline constexpr int64_t kNormWidth = 16;  // divides the length of rows that are summed

// NormVectors with one number for each column of a row.
template <typename S>
struct NormColumns {
  const S *mean, *mul, *bias, *slope, *offset;
};

// Rows are `width` apart. `count` rows are at most kNormRows where they are summed.
template <typename T>
struct NormRows {
  using S = Sum<T>;
  // Adds x - shift to sum, and its square to square.
  void (*add_moments)(const T* x, int64_t count, int64_t width, const S* shift, S* sum, S* square);
  // Adds g to sum, and g * (x - mean) to product; one function for each activation.
  void (*add_gradients[kActivations])(const T* x, const T* dy, int64_t count, int64_t width,
                                      const NormColumns<S>&, S* sum, S* product);
  // y and dx. A single row may be of any length.
  void (*normalize[kActivations])(const T* x, int64_t count, int64_t width, const NormColumns<S>&, T* y);
  void (*gradient[kActivations])(const T* x, const T* dy, int64_t count, int64_t width, const NormColumns<S>&,
                                 T* dx);
  // Merges the moments of `block` rows, as add_moments() leaves them, into the mean and the sum of squared
  // deviations of `rows` rows; clears sum and square.
  void (*merge_block)(int64_t width, double rows, double block, const S* shift, S* sum, S* square,
                      double* mean, double* squares);
  // Adds two rows of sums to totals and clears them.
  void (*move_sums)(int64_t width, S* sum, S* product, double* total, double* total_product);
};

CONVGRAD_PER_ISA(template <typename T> const NormRows<T>& norm_rows())

}  // namespace convgrad::cpu
