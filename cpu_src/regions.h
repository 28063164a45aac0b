// Where a convolution's results see the same filter taps: along one axis, runs of results whose taps on
// the source are the same ones, so that kernels over a run have no border and no zero to multiply.
//
// The relation o * stride + r * filter_dilation - pad_lo = i * input_dilation, read from the result's side
// (o): with g = gcd(stride, input_dilation) the results o = phase + (input_dilation / g) * j of one phase
// meet the same taps, r = r_first + (input_dilation / gcd(filter_dilation, input_dilation)) * t, and each
// step of j moves the source position i by stride / g. fprop has input_dilation phases (mostly one); dgrad is
// fprop over the transposed axis, so a strided dgrad has one phase a stride and never meets a zero between
// the strides.
#pragma once

#include <cstdint>
#include <vector>

#include "ffi_src/problem.h"

namespace convgrad::cpu {

// Results o = result_first + result_step * j, j in [0, count); taps t in [0, taps), numbered in packed order
// (below) from tap_first; both lead to the source position
// source_first + source_step * j + tap_source_step * t.
struct Region {
  int64_t result_first, result_step, count;
  int64_t source_first, source_step;
  int64_t tap_first, taps, tap_source_step;
};

// Every result position of the axis lies in exactly one region; a region may have no taps.
std::vector<Region> regions(const Axis& axis);

// What the regions would be if the source had no ends: result o is the one of phase o % result_step and
// j = o / result_step. Source positions may lie outside.
std::vector<Region> phases(const Axis& axis);

// The region of one result alone: a phase's, with those of its taps that are on the source.
Region region_of_one(const Axis& axis, const Region& phase, int64_t j);

// The packed order of an axis' taps, in which those of one phase are neighbours: packed position -> tap r.
std::vector<int64_t> packed_taps(const Axis& axis);

// An axis along which a position meets itself alone, so that it can be read as part of another.
bool is_trivial(const Axis& axis);

// The same problem with trivial axes, and the batch, merged as far as they are neighbours in memory: a 1x1
// convolution becomes one long row.
ConvProblem merge_trivial_axes(const ConvProblem& problem);

}  // namespace convgrad::cpu
