#include "cuda_src/wgmma/plan.h"

#include <algorithm>
#include <limits>

#include "common_src/integers.h"
#include "cuda_src/block/choice.h"
#include "cuda_src/is_empty.h"
#include "cuda_src/wgmma/im2col.h"

namespace convgrad::cuda {
namespace {

// The multiprocessors of a large device of this kind. Tiles are chosen for it whichever device runs them, so
// that a problem gives the same bits on all.
constexpr int64_t kMultiprocessors = 132;

// TMA's lines begin at multiples of 16 bytes.
bool whole_chunks(const ConvProblem& p) {
  const int64_t chunk = 16 / bytes_of(p.dtype);
  return p.group_in() % chunk == 0 && p.group_out() % chunk == 0;
}

// wgmma accepts 16-bit operands K-major or MN-major, but TF32 operands only K-major. wgrad sums over
// positions, so both of its operands are MN-major.
bool has_arithmetic(DType dtype, Op op, bool tf32) {
  return bytes_of(dtype) == 2 || (dtype == DType::kF32 && tf32 && op != Op::kWgrad);
}

// The kernels count positions and tiles in 31 bits.
bool countable(const ConvProblem& p) {
  constexpr int kBits = 30;
  return gemm_serves(p) && fits_bits(kBits, {p.batch, p.outputs()}) &&
         fits_bits(kBits, {p.batch, p.inputs()}) &&
         fits_bits(kBits, {p.taps(), p.in_channels, p.out_channels});
}

// Reports whether the kernel whose result is an activation serves the problem.
bool serves_activation(const ConvProblem& p) {
  // A slice of 64 channels that reached into the next group would multiply that group's numbers by zeros, and
  // an infinity among them would give NaN.
  if (p.groups > 1 && p.group_in() % wgmma_depth(p.dtype) != 0) return false;
  // Taps are left out only for a whole phase, which does not help if each tap is on padding for most outputs.
  for (const Axis& axis : p.axis)
    if (pads_most_outputs(axis)) return false;
  int64_t phases = 1;
  for (const Axis& axis : p.axis) phases *= phases_of(axis);
  if (phases > kWgmmaPhases) return false;
  const int axes = spatial_axes(p);
  for (int64_t f = 0; f < phases; ++f) {
    int64_t rest = f;
    WindowAxis window[kAxes];
    bool tied = true;
    for (int a = kAxes - 1; a >= 0; --a) {
      const int64_t count = phases_of(p.axis[a]);
      window[a] = window_axis(p.axis[a], met_phase_of(p.axis[a], rest % count));
      rest /= count;
      tied = tied && window[a].taps > 0;
    }
    if (tied && !im2col_serves(window, axes)) return false;
  }
  return true;
}

bool serves_filter(const ConvProblem& p) {
  if (is_mostly_padding(p)) return false;  // every chunk of rows goes over all positions
  WindowAxis window[kAxes];
  for (int a = 0; a < kAxes; ++a) {
    if (p.axis[a].input_dilation != 1) return false;
    window[a] = window_axis(p.axis[a], phase_of(p.axis[a], 0));
  }
  return im2col_serves(window, spatial_axes(p));
}

}  // namespace

bool wgmma_serves(Op op, const ConvProblem& p, bool tf32) {
  if (!has_arithmetic(p.dtype, op, tf32) || !whole_chunks(p) || is_empty(p) || !countable(p) ||
      !countable(p.transpose()))
    return false;
  switch (op) {
    case Op::kFprop:
      return serves_activation(p);
    case Op::kDgrad:
      return serves_activation(p.transpose());
    case Op::kWgrad:
      return serves_filter(p);
  }
  return false;
}

int wgmma_columns(int64_t row_tiles, int64_t columns) {
  int best = 64;
  double least = std::numeric_limits<double>::infinity();
  for (const int tile : {64, 128, 256}) {
    const int64_t tiles = row_tiles * tiles_over(columns, tile);
    const int64_t rounds = tiles_over(tiles, kMultiprocessors);
    // Lines of rows and of columns come from the second-level cache, and a multiprocessor waits longer for
    // them than its tensor cores multiply (an estimate: it gets 40 bytes per cycle, and a tile of 128 by 128
    // would need 64). Wide tiles read fewer rows per column.
    const double cost = static_cast<double>(rounds) * (kWgmmaRows + tile);
    if (cost < least) {
      least = cost;
      best = tile;
    }
  }
  return best;
}

int64_t wgmma_filter_chunks(const ConvProblem& p) { return p.taps() * tiles_over(p.group_in(), 64); }

Split wgmma_filter_split(const ConvProblem& p) {
  // Enough parts for two rounds of tiles on a large device, and at most kTerms terms per sum where memory
  // allows. No part is so short that its partial sums cost as much as its products.
  constexpr int64_t kRounds = 2, kTerms = 16384, kShortest = 512;
  const int64_t depth = p.batch * p.outputs();
  const int64_t tiles = tiles_over(wgmma_filter_chunks(p), 2) * tiles_over(p.group_out(), 128) * p.groups;
  const int64_t wanted =
      std::max(kRounds * kMultiprocessors / std::max<int64_t>(tiles, 1), tiles_over(depth, kTerms));
  const int64_t parts = wgrad_parts(p, wanted, depth / kShortest);
  const int64_t slice = wgmma_depth(p.dtype);
  const int64_t length = tiles_over(tiles_over(depth, parts), slice) * slice;
  return {std::max<int64_t>(tiles_over(depth, length), 1), length};
}

}  // namespace convgrad::cuda
