// Computes dw = E3^T ((C^T x) * (E4 dy)), summed over tiles (plan.h).
//
// A task takes a block of the filter's channels, for one of the taps that are not transformed, over a part of
// the tiles. Block by block of tiles it transforms x and dy and adds their outer products at each point; at
// the end it transforms the sums into taps. If the tiles are split, or results have 16 bits, a second stage
// adds the parts in order.
#include <algorithm>
#include <memory>
#include <vector>

#include "common_src/integers.h"
#include "cpu_src/kernels.h"
#include "cpu_src/microkernels/filter_tile.h"
#include "cpu_src/microkernels/rows.h"
#include "cpu_src/microkernels/winograd_transforms.h"
#include "cpu_src/result.h"
#include "cpu_src/thread_scratch.h"
#include "cpu_src/winograd/plan.h"

namespace convgrad::cpu {
namespace {

template <typename T>
class WinogradFilterRunner {
 public:
  WinogradFilterRunner(const WinogradFilterPlan& plan, const T* x, const T* dy)
      : plan_(plan),
        p_(plan.problem),
        x_(x),
        dy_(dy),
        transforms_(CONVGRAD_FOR_ISA(plan.isa, winograd_transforms<T>(plan.tiles.axes()))),
        products_(CONVGRAD_FOR_ISA(plan.isa, filter_tiles<float>())),
        zeros_(std::max(plan.block_sources, plan.block_columns) + 16),
        v_row_(divide_up(plan.block_sources, 16) * 16),
        v_step_(plan.block_tiles * v_row_ + 16),
        d_step_(plan.block_tiles * plan.block_columns + 16),
        m_step_(plan.block_sources * plan.block_columns + 16),
        v_(thread_scratch(plan.tiles.points() * (v_step_ + d_step_ + m_step_))),
        d_(v_ + plan.tiles.points() * v_step_),
        m_(d_ + plan.tiles.points() * d_step_) {}

  // Writes the sums of a task to dw, or to one part of it.
  void run(int64_t unit, int64_t part, float* dw) {
    const int64_t k = unit % plan_.column_blocks * plan_.block_columns;
    unit /= plan_.column_blocks;
    const int64_t c = unit % plan_.source_blocks * plan_.block_sources;
    unit /= plan_.source_blocks;
    const int64_t tap = unit % plan_.tiles.other_taps(), group = unit / plan_.tiles.other_taps();
    const int64_t sources = std::min(plan_.block_sources, p_.group_in() - c),
                  columns = std::min(plan_.block_columns, p_.group_out() - k);
    std::fill_n(m_, plan_.tiles.points() * m_step_, 0.0f);
    const int64_t last = (part + 1) * plan_.tile_blocks / plan_.parts;
    for (int64_t block = part * plan_.tile_blocks / plan_.parts; block < last; ++block) {
      const int64_t first = block * plan_.block_tiles,
                    count = std::min(plan_.block_tiles, plan_.tiles.tiles() - first);
      transform_block(first, count, tap, group, c, sources, k, columns);
      multiply(count, sources, columns);
    }
    const int64_t tap_size = p_.group_in() * p_.out_channels, width = plan_.panel_width();
    float* const first = dw + plan_.tiles.first_tap(tap) * tap_size + group * p_.group_out() + k;
    for (int64_t at = 0; at < columns; at += width) {
      const int64_t in_panel = std::min(width, columns - at),
                    row_step = divide_up(in_panel, plan_.lanes) * plan_.lanes;
      for (int64_t row = 0; row < sources; ++row)
        transforms_.filter_grad(m_ + at * plan_.block_sources + row * row_step, m_step_, in_panel,
                                first + (c + row) * p_.out_channels + at, plan_.tiles.tap_step() * tap_size);
    }
  }

 private:
  void transform_block(int64_t first, int64_t count, int64_t tap, int64_t group, int64_t c, int64_t sources,
                       int64_t k, int64_t columns) {
    const T *patch[36], *tile[16];
    const T *x = x_ + group * p_.group_in() + c, *dy = dy_ + group * p_.group_out() + k;
    for (int64_t t = 0; t < count; ++t) {
      plan_.tiles.point_at_patch(first + t, tap, x, zeros_.data(), patch);
      transforms_.input(patch, sources, v_ + t * v_row_, v_step_);
      plan_.tiles.point_at_results(first + t, dy, sizeof(T), zeros_.data(), tile);
      transforms_.output_grad(tile, columns, d_ + t * plan_.block_columns, d_step_);
    }
  }

  void multiply(int64_t count, int64_t sources, int64_t columns) {
    const int64_t width = plan_.panel_width();
    const PositionRow all{0, 0};
    for (int64_t point = 0; point < plan_.tiles.points(); ++point) {
      for (int64_t k = 0; k < columns; k += width) {
        const int64_t panel_vectors = divide_up(std::min(width, columns - k), plan_.lanes);
        const int64_t pieces = divide_up(sources, products_.most_channels[panel_vectors]);
        for (int64_t piece = 0; piece < pieces; ++piece) {
          const int64_t c = piece * sources / pieces, rows = (piece + 1) * sources / pieces - c;
          // m[p][c][k] += sum over tiles t of v[p][t][c] * d[p][t][k]
          products_.tile[panel_vectors][rows](
              v_ + point * v_step_ + c, d_ + point * d_step_ + k, &all, 1, count, v_row_, plan_.block_columns,
              m_ + point * m_step_ + k * plan_.block_sources + c * panel_vectors * plan_.lanes);
        }
      }
    }
  }

  const WinogradFilterPlan& plan_;
  const ConvProblem& p_;
  const T *x_, *dy_;
  const WinogradTransforms<T>& transforms_;
  const FilterTiles<float>& products_;
  const std::vector<T> zeros_;
  const int64_t v_row_, v_step_, d_step_, m_step_;
  float *const v_, *const d_, *const m_;
};

// Adds the parts of some numbers of dw, in order.
template <typename T>
void add_parts(const WinogradFilterPlan& plan, int64_t first, int64_t last, float* parts, int64_t size,
               const Result<T>& dw) {
  const RowConversions<float>& sums = row_conversions_of<float>(plan.isa);
  const RowConversions<T>& rounds = row_conversions_of<T>(plan.isa);
  for (int64_t part = 1; part < plan.parts; ++part)
    sums.add(parts + part * size + first, 0, parts + first, 0, 1, last - first);
  (dw + first).store(rounds, sums, parts + first, 0, 0, 1, last - first);
}

template <typename T>
Work winograd_wgrad_of(const ConvProblem& problem, Isa isa, const void* x_data, const void* dy_data,
                       void* dw_data, void* workspace) {
  const auto plan = std::make_shared<const WinogradFilterPlan>(problem, isa);
  const T *x = static_cast<const T*>(x_data), *dy = static_cast<const T*>(dy_data);
  const Result<T> dw(dw_data, problem);
  const int64_t size = problem.taps() * problem.group_in() * problem.out_channels;
  const bool in_place = plan->parts == 1 && dw.sums() != nullptr;
  float* const parts = in_place ? dw.sums() : static_cast<float*>(workspace);
  Work work;
  work.stages.push_back(
      {plan->tasks(), [=](int64_t task) {
         const int64_t part = task % plan->parts;
         WinogradFilterRunner<T>(*plan, x, dy).run(task / plan->parts, part, parts + part * size);
       }});
  if (in_place) return work;
  constexpr int64_t kNumbersOfTask = 1 << 14;
  work.stages.push_back({divide_up(size, kNumbersOfTask), [=](int64_t task) {
                           add_parts(*plan, task * kNumbersOfTask,
                                     std::min(size, (task + 1) * kNumbersOfTask), parts, size, dw);
                         }});
  return work;
}

}  // namespace

Work winograd_wgrad(const ConvProblem& problem, Isa isa, const void* x, const void* dy, void* dw,
                    void* workspace) {
  const auto of = problem.dtype == DType::kBF16  ? winograd_wgrad_of<BFloat16>
                  : problem.dtype == DType::kF16 ? winograd_wgrad_of<Float16>
                                                 : winograd_wgrad_of<float>;
  return of(problem, isa, x, dy, dw, workspace);
}

}  // namespace convgrad::cpu
