#include "cpu_src/pool/plan.h"

#include <algorithm>

#include "common_src/integers.h"

namespace convgrad::cpu {
namespace {

// Orders a region's taps as the window does: seen from the result's side, the transposed axis has them
// reversed.
Region in_window_order(Region region, bool gradient) {
  if (!gradient) return region;
  region.source_first += region.tap_source_step * (region.taps - 1);
  region.tap_source_step = -region.tap_source_step;
  return region;
}

}  // namespace

PoolPlan::PoolPlan(const PoolProblem& problem, bool gradient, int vector_lanes)
    : problem_(problem), gradient_(gradient) {
  for (int a = 0; a < kAxes; ++a) {
    const Axis& axis = problem.axis[a];
    axis_[a] = gradient ? axis.transpose() : axis;
    divisors_[a].assign(axis.output, problem.sum ? 1 : axis.taps);
    if (!problem.sum && !problem.count_include_pad) {
      for (const Region& region : regions(axis))
        std::fill_n(divisors_[a].begin() + region.result_first, region.count, region.taps);
    }
  }
  for (int a = 0; a < 2; ++a) {
    region_of_[a].resize(axis_[a].output);
    for (const Region& region : regions(axis_[a])) {
      for (int64_t j = 0; j < region.count; ++j)
        region_of_[a][region.result_first + j * region.result_step] =
            static_cast<int32_t>(regions_[a].size());
      regions_[a].push_back(in_window_order(region, gradient));
    }
  }
  rows_ = problem.batch * axis_[0].output * axis_[1].output;
  list_pieces(vector_lanes);
  // A task that reads or writes so many numbers takes about 20 microseconds.
  constexpr int64_t kTasks = 64, kTaskNumbers = 1 << 16;
  const int64_t results = rows_ * axis_[2].output,
                sources = problem.batch * (gradient ? problem.outputs() : problem.inputs());
  const int64_t reads = gradient
                            ? divide_up(problem.taps(), axis_[0].input_dilation * axis_[1].input_dilation *
                                                            axis_[2].input_dilation)
                            : problem.taps();
  const int64_t numbers = (results + results * reads / 4 + sources) * problem.channels;
  tasks_ = std::min(std::clamp<int64_t>(numbers / kTaskNumbers, 1, kTasks),
                    rows_ * static_cast<int64_t>(pieces_.size()));
}

void PoolPlan::group_forward(int vector_lanes) {
  const int64_t C = problem_.channels, stride = axis_[2].stride;
  int64_t longest = 0;
  for (const Region& region : regions(axis_[2])) longest = std::max(longest, region.count);
  // Spans of at most two vectors.
  const int64_t units = std::min({vector_lanes / C, (2 * vector_lanes - C) / (stride * C) + 1, longest});
  if (units < 2) return;
  lanes_.units = units;
  lanes_.used = units * C;
  lanes_.span = (units - 1) * stride * C + C;
  for (int64_t lane = 0; lane < vector_lanes; ++lane) {
    const int64_t unit = std::min(lane / C, units - 1);
    lanes_.pick[lane] = static_cast<int32_t>(unit * stride * C + lane % C);
    lanes_.position[lane] = static_cast<int32_t>(unit * stride);
    lanes_.last_tap[lane] = -1;
  }
}

void PoolPlan::group_gradient(int vector_lanes, int64_t& first, int64_t& last) {
  const Axis& axis = problem_.axis[2];
  const int64_t C = problem_.channels, stride = axis.stride, taps = divide_up(axis.taps, stride);
  first = last = 0;
  if (axis.filter_dilation != 1 || vector_lanes / C < std::max<int64_t>(stride, 2)) return;
  // The outputs between those whose windows the padding cuts short, if the count of taps matters.
  const auto& divisors = divisors_[2];
  int64_t low = 0, high = axis.output;
  while (low < high && divisors[low] != axis.taps) ++low;
  while (low < high && divisors[high - 1] != axis.taps) --high;
  if (std::any_of(divisors.begin() + low, divisors.begin() + high, [&](int64_t d) { return d != axis.taps; }))
    return;
  // Unit u is the inputs from u * stride - pad_lo on; its taps are on the outputs u, u - 1, ...
  first = std::max(low + taps - 1, divide_up(axis.pad_lo, stride));
  last = std::min(high, divide_down(axis.input + axis.pad_lo, stride));
  const int64_t units = std::min<int64_t>(vector_lanes / (stride * C), last - first);
  if (units < 1) {
    first = last = 0;
    return;
  }
  lanes_.units = units;
  lanes_.used = units * stride * C;
  lanes_.span = units * C;
  for (int64_t lane = 0; lane < vector_lanes; ++lane) {
    const int64_t pixel = std::min(lane / C, units * stride - 1);
    lanes_.pick[lane] = static_cast<int32_t>(pixel / stride * C + lane % C);
    lanes_.position[lane] = static_cast<int32_t>(pixel);
    lanes_.last_tap[lane] = pixel % stride + (taps - 1) * stride < axis.taps ? -1 : 0;
  }
}

void PoolPlan::list_pieces(int vector_lanes) {
  const int64_t C = std::max<int64_t>(problem_.channels, 1);
  const int64_t stride = problem_.axis[2].stride, size = axis_[2].output;
  // About 8192 numbers of the result; fewer if there are few rows to make tasks of.
  const int64_t piece_results = std::max<int64_t>(
      {std::min(8192 / C, size * std::max<int64_t>(rows_, 1) / 256), 2 * vector_lanes / C, 1});
  int64_t first = 0, last = 0;
  if (problem_.channels > 0 && problem_.channels < vector_lanes) {
    if (gradient_)
      group_gradient(vector_lanes, first, last);
    else
      group_forward(vector_lanes);
  }
  int64_t src = 0, dst = 0;  // results that the gradient's groups take
  if (first < last) {
    src = first * stride - problem_.axis[2].pad_lo;
    dst = last * stride - problem_.axis[2].pad_lo;
    const int64_t taps = divide_up(problem_.axis[2].taps, stride);
    add_piece({src, stride, last - first, first, 1, taps, -1, true, problem_.axis[2].taps}, stride,
              piece_results);
  }
  for (const Region& region : regions(axis_[2]))
    add_region(in_window_order(region, gradient_), piece_results, src, dst);
  std::stable_sort(pieces_.begin(), pieces_.end(),
                   [](const PoolPiece& a, const PoolPiece& b) { return a.result_first < b.result_first; });
}

// Adds the region's results outside of [from, to).
void PoolPlan::add_region(const Region& region, int64_t piece_results, int64_t src, int64_t dst) {
  const auto divisor_of = [&](int64_t j) {
    if (!gradient_) return divisors_[2][region.result_first + region.result_step * j];
    int64_t divisor = -1;
    for (int64_t t = 0; t < region.taps; ++t) {
      const int64_t met =
          divisors_[2][region.source_first + region.source_step * j + region.tap_source_step * t];
      divisor = divisor < 0 || divisor == met ? met : 0;
      if (divisor == 0) break;
    }
    return divisor < 0 ? 1 : divisor;
  };
  const bool mixed = gradient_ && std::any_of(divisors_[2].begin(), divisors_[2].end(),
                                              [&](int64_t d) { return d != divisors_[2].front(); });
  const auto add = [&](int64_t begin, int64_t end) {
    for (int64_t j = begin; j < end;) {
      const int64_t divisor = divisor_of(j);
      int64_t next = mixed ? j + 1 : end;
      while (next < end && divisor_of(next) == divisor) ++next;
      PoolPiece piece{region.result_first + region.result_step * j,
                      region.result_step,
                      next - j,
                      region.source_first + region.source_step * j,
                      region.source_step,
                      region.taps,
                      region.tap_source_step,
                      false,
                      divisor};
      piece.grouped = !gradient_ && lanes_.units > 0 && piece.count >= lanes_.units && region.taps > 0;
      add_piece(piece, region.result_step, piece_results);
      j = next;
    }
  };
  const auto step_from = [&](int64_t result) {
    return std::clamp<int64_t>(divide_up(result - region.result_first, region.result_step), 0, region.count);
  };
  if (src >= dst) return add(0, region.count);
  add(0, step_from(src));
  add(step_from(dst), region.count);
}

void PoolPlan::add_piece(const PoolPiece& piece, int64_t unit_results, int64_t piece_results) {
  const int64_t least =
      std::max<int64_t>({piece_results / unit_results, piece.grouped ? lanes_.units : 1, 1});
  const int64_t parts = std::max<int64_t>(piece.count / least, 1);
  for (int64_t part = 0; part < parts; ++part) {
    const int64_t begin = piece.count * part / parts, end = piece.count * (part + 1) / parts;
    PoolPiece cut = piece;
    cut.result_first += begin * piece.result_step;
    cut.source_first += begin * piece.source_step;
    cut.count = end - begin;
    pieces_.push_back(cut);
  }
}

PoolPlan::Row PoolPlan::row_at(int64_t index) const {
  const int64_t C = problem_.channels;
  Row row;
  int64_t at[2];
  at[1] = index % axis_[1].output;
  at[0] = index / axis_[1].output % axis_[0].output;
  row.image = index / (axis_[1].output * axis_[0].output);
  row.run.channels = C;
  row.divisor = 1;
  int64_t source = 0, result = 0;
  for (int a = 0; a < 2; ++a) {
    const Region& region = regions_[a][region_of_[a][at[a]]];
    row.first[a] =
        region.source_first + (at[a] - region.result_first) / region.result_step * region.source_step;
    row.tap_step[a] = region.tap_source_step;
    row.run.taps[a] = region.taps;
    const int64_t inner = a == 0 ? axis_[1].input * axis_[2].input : axis_[2].input;
    row.run.tap_position[a] = region.tap_source_step * inner;
    row.run.tap_step[a] = row.run.tap_position[a] * C;
    source += row.first[a] * inner;
    result = result * axis_[a].output + at[a];
    int64_t divisor = gradient_ ? -1 : divisors_[a][at[a]];
    for (int64_t t = 0; gradient_ && t < region.taps && divisor != 0; ++t) {
      const int64_t met = divisors_[a][row.first[a] + region.tap_source_step * t];
      divisor = divisor < 0 || divisor == met ? met : 0;
    }
    row.divisor *= divisor < 0 ? 1 : divisor;
  }
  row.source_position = source;
  row.result_position = result * axis_[2].output;
  return row;
}

void PoolPlan::set_piece(Row& row, const PoolPiece& piece) const {
  const int64_t C = problem_.channels;
  PoolRun& run = row.run;
  run.count = piece.count;
  run.source_step = piece.source_step * C;
  run.result_step = piece.result_step * C;
  run.taps[2] = piece.taps;
  run.tap_step[2] = piece.tap_step * C;
  run.tap_position[2] = piece.tap_step;
  run.lanes = piece.grouped ? &lanes_ : nullptr;
  if (gradient_) {
    run.position = row.result_position + piece.result_first;
    run.position_step = piece.result_step;
  } else if (run.has_taps()) {
    run.position = row.source_position + piece.source_first;
    run.position_step = piece.source_step;
  } else {
    run.lanes = nullptr;
    run.position = -1;
    run.position_step = 0;
  }
}

}  // namespace convgrad::cpu
