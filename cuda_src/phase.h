// A dilated input without its zeros. Between dilated inputs there is nothing to multiply, and which taps meet
// nothing depends only on an output's residue: o and r are tied to an input only where
//
//     o * stride + r * filter_dilation - pad_lo  =  0   (mod input_dilation)
//
// So the outputs o = o_first + o_step * o' of one residue see the taps r = r_first + r_step * r', and among
// these the relation is a plain one again, i = start(o') + r' * tap_step. Each such class of outputs is a
// phase. A strided dgrad, as fprop of the transposed problem, has up to stride phases an axis; a problem
// without input dilation is its own single phase.
#pragma once

#include <cstdint>

#include "ffi_src/problem.h"
#include "ffi_src/relation.h"

namespace convgrad::cuda {

struct PhaseAxis {
  int64_t outputs, taps;  // of this phase; none where no tap is ever tied
  int64_t o_first, o_step;
  int64_t r_first, r_step;
  int64_t first_start, output_step, tap_step;

  // The input that o' and r' are tied to; it may lie on the padding.
  CONVGRAD_HD int64_t start(int64_t o) const { return first_start + o * output_step; }
};

// How many phases an axis has, those without an output left out.
CONVGRAD_HD inline int64_t phases_of(const Axis& axis) {
  const int64_t residues = axis.input_dilation / greatest_common_divisor(axis.stride, axis.input_dilation);
  return residues < axis.output ? residues : (axis.output > 0 ? axis.output : 1);
}

CONVGRAD_HD inline PhaseAxis phase_of(const Axis& axis, int64_t phase) {
  const int64_t d = axis.input_dilation;
  const Congruence tied(axis.filter_dilation, d);
  PhaseAxis p;
  p.o_first = phase;
  p.o_step = d / greatest_common_divisor(axis.stride, d);
  p.r_step = tied.step;
  p.outputs = (axis.output - p.o_first + p.o_step - 1) / p.o_step;
  p.output_step = p.o_step * axis.stride / d;
  p.tap_step = p.r_step * axis.filter_dilation / d;
  // The first tap of the residue that is tied, if there is one.
  const int64_t at = p.o_first * axis.stride - axis.pad_lo, first = tied.first(-at);
  const bool any = first != kNone && first < axis.taps;
  p.r_first = any ? first : 0;
  p.taps = any ? (axis.taps - first + p.r_step - 1) / p.r_step : 0;
  p.first_start = any ? (at + first * axis.filter_dilation) / d : 0;
  return p;
}

}  // namespace convgrad::cuda
