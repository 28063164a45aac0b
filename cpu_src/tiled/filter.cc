// Computes dw[r,c,k] = sum over n, o of x[n,i,c] * dy[n,o,k] tile by tile in registers.
//
// A task takes some of the filter's tiles (units) over some blocks of positions. For each block a panel of dy
// is copied so that its rows are contiguous (widened, and padded to whole vectors), and every unit of the
// panel runs over it, reading x in place. Each tap has its own range of positions, so no padding is
// multiplied. A block's sums are added to the task's own sums, which are written after the last block: into
// dw or, if the positions are split too, into partial sums that a second stage adds in order.
#include <algorithm>
#include <memory>
#include <vector>

#include "common_src/dispatch.h"
#include "common_src/integers.h"
#include "cpu_src/aligned.h"
#include "cpu_src/bf16_dots.h"
#include "cpu_src/kernels.h"
#include "cpu_src/microkernels/avx512_bf16/pair_rows.h"
#include "cpu_src/microkernels/filter_tile.h"
#include "cpu_src/microkernels/rows.h"
#include "cpu_src/result.h"
#include "cpu_src/tiled/filter_plan.h"
#include "cpu_src/tiled/staged_rows.h"

namespace convgrad::cpu {
namespace {

// The start of a line's row of y: n and the positions along axes 0 and 1.
struct Line {
  int64_t n, o0, o1;
};

// X is what the tiles multiply: numbers in the type of the sums, or pairs.
template <typename T, typename X>
class FilterTaskRunner {
 public:
  using S = Sum<T>;

  FilterTaskRunner(const FilterPlan& plan, const T* x, const T* dy)
      : plan_(plan),
        p_(plan.problem),
        tiles_(filter_tiles_of<X>(plan.isa)),
        rows_(row_conversions_of<T>(plan.isa)),
        x_(x),
        dy_(dy),
        staged_x_(p_, plan.joined, plan.outputs_of_tap.partner_step()) {}

  // Returns the sums of units [first_unit, last_unit), tile after tile, each with the stride of a full panel.
  const std::vector<S>& run(const FilterTask& task) {
    sums_.assign((task.last_unit - task.first_unit) * tile_size(), S{0});
    for (int64_t block = task.first_block; block < task.last_block; ++block) {
      take(plan_.block(block));
      for (int64_t at = plan_.next_within(task.first_unit, bounds_); at < task.last_unit;) {
        const bool tied = add_unit(plan_.unit(at), sums_.data() + (at - task.first_unit) * tile_size());
        at = plan_.next_within(tied ? at + 1 : plan_.next_row(at), bounds_);
      }
    }
    return sums_;
  }

  int64_t tile_size() const { return divide_up(plan_.rows, plan_.tiles) * plan_.panel_width(); }

 private:
  static constexpr bool kAsStored = std::is_same_v<T, X>;

  Line line_at(int64_t line) const {
    const int64_t o1 = line % p_.axis[1].output, rest = line / p_.axis[1].output;
    return {rest / p_.axis[0].output, rest % p_.axis[0].output, o1};
  }

  void take(const PositionBlock& block) {
    block_ = block;
    lines_.clear();
    for (int64_t line = block.first_line; line < block.last_line; ++line) lines_.push_back(line_at(line));
    group_ = panel_ = tap_ = kNone;
    // Skips taps that tie none of the block's positions.
    const Line &first = lines_.front(), &last = lines_.back();
    const bool one_image = first.n == last.n, one_plane = one_image && first.o0 == last.o0;
    bounds_[0] = one_image ? tap_bounds(p_.axis[0], first.o0, last.o0 + 1)
                           : tap_bounds(p_.axis[0], 0, p_.axis[0].output);
    bounds_[1] = one_plane ? tap_bounds(p_.axis[1], first.o1, last.o1 + 1)
                           : tap_bounds(p_.axis[1], 0, p_.axis[1].output);
    bounds_[2] = plan_.joined ? TapBounds{0, 1} : tap_bounds(p_.axis[2], block.first, block.last);
  }

  // Returns false if the unit's taps along axes 0 and 1 meet no row of x.
  bool add_unit(const FilterUnit& unit, S* sums) {
    if (unit.group != group_ || unit.panel != panel_) take_panel(unit);
    const int64_t tap = (unit.tap0 * p_.axis[1].taps + unit.tap1) * plan_.taps2() + unit.tap2;
    if (tap != tap_) list_positions(unit, tap);
    if (positions_.empty()) return count_ == 0;
    const int vectors = plan_.panel_vectors(unit.panel);
    tiles_.tile[vectors][unit.rows](x_rows() + unit.first_row, panel_dy_, positions_.data(),
                                    static_cast<int64_t>(positions_.size()), count_, x_step_, dy_step_, sums);
    return true;
  }

  // Prepares the block's dy for one panel, and x if it cannot be read in place.
  void take_panel(const FilterUnit& unit) {
    if (unit.group != group_ && stages_x()) stage_x(unit.group);
    group_ = unit.group;
    panel_ = unit.panel;
    tap_ = kNone;
    const int64_t width = plan_.panel_vectors(unit.panel) * plan_.lanes,
                  channels = plan_.panel_channels(unit.panel);
    const int64_t K = p_.out_channels, count = block_.last - block_.first, line_in_dy = p_.axis[2].output * K;
    const T* src = dy_ + block_.first_line * line_in_dy + block_.first * K + unit.group * p_.group_out() +
                   unit.panel * plan_.panel_width();
    if constexpr (kAsStored) {
      // With few tiles to share it, the copy would not pay.
      constexpr int64_t kFew = 8;
      const int64_t sharing = p_.axis[0].taps * p_.axis[1].taps * plan_.taps2() * plan_.tiles;
      if (channels == width && sharing < kFew) {
        panel_dy_ = src;
        dy_position_ = K;
        dy_line_ = line_in_dy;
        return;
      }
    }
    dy_position_ = width;
    dy_line_ = count * width;
    staged_dy_.resize(lines_.size() * dy_line_);
    if (channels != width) std::fill_n(staged_dy_.data(), lines_.size() * dy_line_, X{});
    [[maybe_unused]] const Positions met = positions_of(0);
    for (size_t line = 0; line < lines_.size(); ++line) {
      const T* const from = src + line * line_in_dy;
      X* const to = staged_dy_.data() + line * dy_line_;
      if constexpr (std::is_same_v<X, BFloat16Pair>) {
        // Pairs `pairs` positions from `first` on, `step` apart, with the next ones that a tap meets.
        const auto zip = [&](int64_t first, int64_t step, int64_t pairs, bool with_next) {
          const T* const src = from + first * K;
          avx512_bf16::zip_rows(src, with_next ? src + met.dy_step * K : nullptr, step * K,
                                to + first * width, step * width, pairs, channels);
        };
        if (plan_.taps2() == 1) {
          zip(met.dy, 2 * met.dy_step, met.count / 2, true);
          zip(met.dy + (met.count - 1) * met.dy_step, 1, met.count % 2, false);
        } else {
          const int64_t paired = std::max<int64_t>(count - met.dy_step, 0);
          zip(0, 1, paired, true);
          zip(paired, 1, count - paired, false);
        }
      } else {
        rows_.widen(from, K, to, width, count, channels);
      }
    }
    panel_dy_ = staged_dy_.data();
  }

  bool stages_x() const { return !kAsStored || plan_.joined; }

  void stage_x(int64_t group) {
    staged_x_.clear(block_.first, block_.last);
    for (const Line& line : lines_) {
      for (int64_t tap0 = bounds_[0].first; tap0 < bounds_[0].last; ++tap0) {
        for (int64_t tap1 = bounds_[1].first; tap1 < bounds_[1].last; ++tap1) {
          const int64_t row = input_row(line, tap0, tap1);
          if (row != kNone) staged_x_.want(row);
        }
      }
    }
    if (plan_.taps2() == 1 && !plan_.joined) {
      const Positions met = positions_of(0);
      staged_x_.want_pairs(met.input, met.count);
    }
    staged_x_.fill(x_ + group * p_.group_in(), rows_);
  }

  // Returns the row of x, within the batch, that two taps tie to a line, or kNone.
  int64_t input_row(const Line& line, int64_t tap0, int64_t tap1) const {
    const int64_t i0 = p_.axis[0].input_at(line.o0, tap0), i1 = p_.axis[1].input_at(line.o1, tap1);
    if (i0 == kNone || i1 == kNone) return kNone;
    return (line.n * p_.axis[0].input + i0) * p_.axis[1].input + i1;
  }

  // The positions of each of the block's lines that a tap along axis 2 ties: the first of x, and the first
  // of dy counted from the block's first.
  struct Positions {
    int64_t count, input, input_step, dy, dy_step;
  };
  Positions positions_of(int64_t tap2) const {
    // Joined taps meet every output, over x with its padding.
    const Axis& axis = p_.axis[2];
    const Progression r2 = plan_.joined
                               ? Progression{0, 1, axis.output, -axis.pad_lo, axis.stride}
                               : plan_.outputs_of_tap.from(axis.pad_lo - tap2 * axis.filter_dilation);
    const auto index_from = [&](int64_t o) {
      return std::clamp<int64_t>(divide_up(o - r2.first, r2.step), 0, r2.count);
    };
    const int64_t first = index_from(block_.first);
    return {index_from(block_.last) - first, r2.partner + r2.partner_step * first,
            plan_.joined ? staged_x_.window_step() : r2.partner_step,
            r2.first + r2.step * first - block_.first, r2.step};
  }

  // Lists the block's positions that the unit's tap ties, with their places in x and dy.
  void list_positions(const FilterUnit& unit, int64_t tap) {
    tap_ = tap;
    positions_.clear();
    const Positions met = positions_of(unit.tap2);
    count_ = met.count;
    const int64_t position = stages_x() ? p_.group_in() : p_.in_channels;
    x_step_ = met.input_step * position;
    dy_step_ = met.dy_step * dy_position_;
    if (count_ == 0) return;
    const int64_t dy = met.dy * dy_position_;
    for (size_t line = 0; line < lines_.size(); ++line) {
      const int64_t row = input_row(lines_[line], unit.tap0, unit.tap1);
      if (row == kNone) continue;
      const int64_t x = stages_x() ? staged_x_.place(row) + (met.input - staged_x_.first()) * position
                                   : (row * p_.axis[2].input + met.input) * position + group_ * p_.group_in();
      positions_.push_back({x, static_cast<int64_t>(line) * dy_line_ + dy});
    }
  }

  const X* x_rows() {
    if constexpr (kAsStored) {
      if (!stages_x()) return x_;
    }
    return staged_x_.data();
  }

  const FilterPlan& plan_;
  const ConvProblem& p_;
  const FilterTiles<X>& tiles_;
  const RowConversions<T>& rows_;
  const T *x_, *dy_;
  std::vector<S> sums_;
  AlignedBuffer<X> staged_dy_;
  StagedRows<T, X> staged_x_;

  // What the units of a block share, as far as it is prepared.
  PositionBlock block_{};
  TapBounds bounds_[kAxes]{};
  std::vector<Line> lines_;
  int64_t group_ = kNone, panel_ = kNone, tap_ = kNone;
  const X* panel_dy_ = nullptr;
  int64_t dy_position_ = 0, dy_line_ = 0;  // elements from one position, or line, to the next
  std::vector<PositionRow> positions_;
  int64_t count_ = 0, x_step_ = 0, dy_step_ = 0;
};

// Writes a tile of the swapped problem, with rows (tap,k) from first_row on and columns c: taps are reversed
// and channels transposed.
template <typename T>
void write_swapped(const FilterPlan& plan, const FilterUnit& unit, int64_t first_row, const Sum<T>* sums,
                   T* dst) {
  const ConvProblem& p = plan.problem;
  const int64_t K = p.in_channels, group_out = p.group_in(), group_in = p.group_out();
  const int64_t width = plan.panel_vectors(unit.panel) * plan.lanes,
                channels = plan.panel_channels(unit.panel);
  int64_t r = p.taps() - 1 - first_row / group_out, k = first_row % group_out;
  for (int64_t row = 0; row < unit.rows; ++row) {
    T* const to_row = dst + (r * group_in + unit.panel * plan.panel_width()) * K + unit.group * group_out + k;
    for (int64_t c = 0; c < channels; ++c) to_row[c * K] = narrow<T>(sums[row * width + c]);
    if (++k == group_out) k = 0, --r;
  }
}

// Writes the task's sums to their places: rows of `channels` numbers, K apart.
template <typename T>
void write(const FilterPlan& plan, const FilterTask& task, const Sum<T>* sums, int64_t tile_size, T* dst,
           const RowConversions<T>& rows) {
  const ConvProblem& p = plan.problem;
  for (int64_t at = task.first_unit; at < task.last_unit; ++at, sums += tile_size) {
    const FilterUnit unit = plan.unit(at);
    const int64_t tap = (unit.tap0 * p.axis[1].taps + unit.tap1) * plan.taps2() + unit.tap2;
    if (plan.swapped) {
      write_swapped(plan, unit, tap * plan.rows + unit.first_row, sums, dst);
      continue;
    }
    T* to_unit = dst + (tap * plan.rows + unit.first_row) * p.out_channels + unit.group * p.group_out() +
                 unit.panel * plan.panel_width();
    rows.narrow(sums, plan.panel_vectors(unit.panel) * plan.lanes, to_unit, p.out_channels, unit.rows,
                plan.panel_channels(unit.panel));
  }
}

template <typename T, typename X>
Work filter_work(std::shared_ptr<const FilterPlan> plan, const T* x, const T* dy, Result<T> dw, void* dw_data,
                 Sum<T>* partial) {
  using S = Sum<T>;
  const ConvProblem& p = plan->problem;
  const int64_t size = p.taps() * p.group_in() * p.out_channels, parts = plan->position_parts;
  Work work;
  work.stages.push_back({plan->tasks(), [=](int64_t index) {
                           const FilterTask task = plan->task(index);
                           FilterTaskRunner<T, X> runner(*plan, x, dy);
                           const S* sums = runner.run(task).data();
                           if (parts == 1 && dw.sums() == nullptr) {
                             write<T>(*plan, task, sums, runner.tile_size(), static_cast<T*>(dw_data),
                                      row_conversions_of<T>(plan->isa));
                           } else {
                             write<S>(*plan, task, sums, runner.tile_size(),
                                      parts == 1 ? dw.sums() : partial + index / plan->unit_parts * size,
                                      row_conversions_of<S>(plan->isa));
                           }
                         }});
  if (parts > 1) {
    constexpr int64_t kPiece = 4096;
    work.stages.push_back(
        {divide_up(size, kPiece), [=](int64_t piece) {
           const auto& rows = row_conversions_of<T>(plan->isa);
           const int64_t first = piece * kPiece, count = std::min(kPiece, size - first);
           for (int64_t part = 1; part < parts; ++part)
             rows.add(partial + part * size + first, 0, partial + first, 0, 1, count);
           (dw + first).store(rows, row_conversions_of<S>(plan->isa), partial + first, 0, 0, 1, count);
         }});
  }
  return work;
}

}  // namespace

Work tiled_wgrad(const ConvProblem& problem, Isa isa, const void* x_data, const void* dy_data, void* dw_data,
                 void* workspace) {
  return dispatch(problem.dtype, [&](auto stored) {
    using T = typename decltype(stored)::type;
    using S = Sum<T>;
    const auto plan = std::make_shared<const FilterPlan>(problem, isa);
    const T* x = static_cast<const T*>(plan->swapped ? dy_data : x_data);
    const T* dy = static_cast<const T*>(plan->swapped ? x_data : dy_data);
    const Result<T> dw(dw_data, problem);
    S* partial = static_cast<S*>(workspace);
    if constexpr (kHasBf16Dots && std::is_same_v<T, BFloat16>) {
      if (plan->pairs) return filter_work<T, BFloat16Pair>(plan, x, dy, dw, dw_data, partial);
    }
    return filter_work<T, S>(plan, x, dy, dw, dw_data, partial);
  });
}

}  // namespace convgrad::cpu
