// Computes y = E4^T ((C^T x) * (E3 w)) tile by tile (plan.h); dgrad is the same over the transposed problem.
//
// A task takes some tiles and some channels of the results, a block at a time. It transforms the tiles'
// patches, multiplies them point by point by the transformed filter, and transforms the sums back. Sums over
// many channels run in blocks, each added to those before.
#include <algorithm>
#include <memory>
#include <vector>

#include "common_src/integers.h"
#include "common_src/major.h"
#include "cpu_src/aligned.h"
#include "cpu_src/kernels.h"
#include "cpu_src/microkernels/activation_tile.h"
#include "cpu_src/microkernels/winograd_transforms.h"
#include "cpu_src/thread_scratch.h"
#include "cpu_src/winograd/plan.h"

namespace convgrad::cpu {
namespace {

constexpr int64_t kWinogradRun = 64;  // terms that are added one by one

// Transforms rows of the filter: u[p][row][k] = (E3 w[., row, k])[p].
template <typename T>
class WinogradFilter {
 public:
  WinogradFilter(const WinogradPlan& plan, const T* filter)
      : plan_(plan),
        filter_(filter),
        transforms_(CONVGRAD_FOR_ISA(plan.isa, winograd_transforms<T>(plan.tiles.axes()))),
        of_sums_(CONVGRAD_FOR_ISA(plan.isa, winograd_transforms<float>(plan.tiles.axes()))),
        transpose_(CONVGRAD_FOR_ISA(plan.isa, transpose_block<T>())) {}

  // Writes sources [first, last) of one group and one of the other taps, for results [k, k + columns) of the
  // group. `u` is where the first source's results begin, `row_step` the step to the next source's.
  void transform(int64_t group, int64_t other_tap, int64_t first, int64_t last, int64_t k, int64_t columns,
                 float* u, int64_t panel_step, int64_t point_step) {
    const int64_t width = plan_.panel_width();
    for (int64_t panel = 0; panel * width < columns; ++panel) {
      const int64_t in_panel = std::min(width, columns - panel * width);
      const int64_t row_step = divide_up(in_panel, plan_.lanes) * plan_.lanes;
      transform_panel(group, other_tap, first, last, k + panel * width, in_panel, u + panel * panel_step,
                      row_step, point_step);
    }
  }

 private:
  void transform_panel(int64_t group, int64_t other_tap, int64_t first, int64_t last, int64_t k,
                       int64_t columns, float* u, int64_t row_step, int64_t point_step) {
    const ConvProblem& p = plan_.problem;
    const int64_t sources = p.group_in(), results = p.group_out();
    const int64_t tap = plan_.tiles.first_tap(other_tap);
    if (plan_.filter_major == Major::kMN) {
      const int64_t tap_size = sources * p.out_channels;
      const T* w = filter_ + tap * tap_size + group * results + k;
      for (int64_t c = first; c < last; ++c)
        transforms_.filter(w + c * p.out_channels, plan_.tiles.tap_step() * tap_size, columns,
                           u + (c - first) * row_step, point_step);
      return;
    }
    // The filter's rows are results here, and its taps run backwards: blocks of it are transposed first.
    const int64_t tap_size = results * p.in_channels, lanes = plan_.lanes, block = lanes * lanes;
    const int64_t taps = plan_.tiles.axes() == 1 ? 3 : 9;
    const T* w = filter_ + (p.taps() - 1 - tap) * tap_size + k * p.in_channels + group * sources;
    transposed_.resize(9 * block);
    for (int64_t at = 0; at < columns; at += lanes) {
      const int64_t rows = std::min(lanes, columns - at);
      for (int64_t c = first; c < last; c += lanes) {
        const int64_t count = std::min(lanes, last - c);
        for (int64_t r = 0; r < taps; ++r)
          transpose_(w - r * plan_.tiles.tap_step() * tap_size + at * p.in_channels + c, p.in_channels, rows,
                     count, transposed_.data() + r * block);
        for (int64_t i = 0; i < count; ++i)
          of_sums_.filter(transposed_.data() + i * lanes, block, lanes, u + (c - first + i) * row_step + at,
                          point_step);
      }
    }
  }

  const WinogradPlan& plan_;
  const T* filter_;
  const WinogradTransforms<T>& transforms_;
  const WinogradTransforms<float>& of_sums_;
  TransposeBlock<T> transpose_;
  AlignedBuffer<float> transposed_;
};

// The transformed filter of all groups in the workspace: group by group, point by point, panel by panel, with
// the rows of a panel side by side.
constexpr int64_t kSourcesOfTask = 16;

int64_t filter_tasks(const WinogradPlan& plan) {
  const ConvProblem& p = plan.problem;
  return plan.shared ? p.groups * plan.tiles.other_taps() * divide_up(p.group_in(), kSourcesOfTask) : 0;
}

template <typename T>
void transform_filter(const WinogradPlan& plan, int64_t task, const T* filter, float* transformed) {
  const ConvProblem& p = plan.problem;
  const int64_t parts = divide_up(p.group_in(), kSourcesOfTask), part = task % parts,
                other_tap = task / parts % plan.tiles.other_taps(),
                group = task / parts / plan.tiles.other_taps(), first = part * kSourcesOfTask;
  const int64_t width = plan.panel_width(), rows = plan.rows();
  WinogradFilter<T> rows_of(plan, filter);
  for (int64_t k = 0; k < p.group_out(); k += width) {
    const int64_t columns = std::min(width, p.group_out() - k),
                  row_step = divide_up(columns, plan.lanes) * plan.lanes;
    rows_of.transform(
        group, other_tap, first, std::min(p.group_in(), first + kSourcesOfTask), k, columns,
        transformed + group * plan.group_step() + k * rows + (other_tap * p.group_in() + first) * row_step, 0,
        plan.point_step());
  }
}

template <typename T>
class WinogradRunner {
 public:
  WinogradRunner(const WinogradPlan& plan, const T* source, const T* filter, const float* transformed,
                 const Epilogue& epilogue, void* result)
      : plan_(plan),
        p_(plan.problem),
        source_(source),
        transformed_(transformed),
        epilogue_(epilogue),
        result_(static_cast<char*>(result)),
        filter_(plan, filter),
        transforms_(CONVGRAD_FOR_ISA(plan.isa, winograd_transforms<T>(plan.tiles.axes()))),
        products_(CONVGRAD_FOR_ISA(plan.isa, activation_tiles<float>())),
        zeros_(plan.block_sources + 16),
        row_(divide_up(plan.block_sources, 16) * 16),
        v_step_(plan.block_tiles * row_ + 16),
        m_step_(plan.block_tiles * plan.block_columns + 16),
        u_step_(plan.shared ? 0 : plan.block_sources * plan.block_columns + 16),
        v_(thread_scratch(plan.tiles.points() * (v_step_ + m_step_ + u_step_))),
        m_(v_ + plan.tiles.points() * v_step_),
        u_(m_ + plan.tiles.points() * m_step_) {}

  void run(int64_t task) {
    const int64_t ranges = plan_.tile_ranges(), range = task % ranges,
                  column_block = task / ranges % plan_.column_blocks;
    group_ = task / ranges / plan_.column_blocks;
    k_ = column_block * plan_.block_columns;
    columns_ = std::min(plan_.block_columns, p_.group_out() - k_);
    const int64_t last = std::min(plan_.tiles.tiles(), (range + 1) * plan_.task_blocks * plan_.block_tiles);
    for (first_ = range * plan_.task_blocks * plan_.block_tiles; first_ < last; first_ += plan_.block_tiles) {
      count_ = std::min(plan_.block_tiles, last - first_);
      Into into = Into::kSet;
      for (int64_t tap = 0; tap < plan_.tiles.other_taps(); ++tap) {
        for (int64_t c = 0; c < p_.group_in(); c += plan_.block_sources) {
          transform_patches(tap, c);
          multiply(tap, c, into);
          into = Into::kAdd;
        }
      }
      transform_results();
    }
  }

 private:
  int64_t sources(int64_t c) const { return std::min(plan_.block_sources, p_.group_in() - c); }

  void transform_patches(int64_t tap, int64_t c) {
    const T* patch[36];
    const T* x = source_ + group_ * p_.group_in() + c;
    for (int64_t t = 0; t < count_; ++t) {
      plan_.tiles.point_at_patch(first_ + t, tap, x, zeros_.data(), patch);
      transforms_.input(patch, sources(c), v_ + t * row_, v_step_);
    }
  }

  void multiply(int64_t tap, int64_t c, Into into) {
    const int64_t width = plan_.panel_width(), all = p_.group_in();
    const float* u;
    int64_t u_step, rows;  // rows of a panel
    if (plan_.shared) {
      u = transformed_ + group_ * plan_.group_step() + k_ * plan_.rows();
      u_step = plan_.point_step();
      rows = plan_.rows();
    } else {
      filter_.transform(group_, tap, c, c + sources(c), k_, columns_, u_, plan_.block_sources * width,
                        u_step_);
      u = u_;
      u_step = u_step_;
      rows = plan_.block_sources;
    }
    const int64_t row = plan_.shared ? tap * all + c : 0;
    for (int64_t point = 0; point < plan_.tiles.points(); ++point) {
      for (int64_t k = 0; k < columns_; k += width) {
        const int64_t panel_vectors = divide_up(std::min(width, columns_ - k), plan_.lanes),
                      row_step = panel_vectors * plan_.lanes;
        const auto& tile = products_.tile[panel_vectors];
        const float* panel = u + point * u_step + k * rows + row * row_step;
        const int64_t pieces = divide_up(count_, products_.most_pixels[panel_vectors]);
        for (int64_t first = 0; first < sources(c); first += kWinogradRun) {
          const Segment segment{first, first * row_step, std::min(kWinogradRun, sources(c) - first)};
          for (int64_t piece = 0; piece < pieces; ++piece) {
            const int64_t t = piece * count_ / pieces, pixels = (piece + 1) * count_ / pieces - t;
            // m[p][t][k] = sum over c of v[p][t][c] * u[p][c][k]
            tile[pixels](v_ + point * v_step_ + t * row_, panel, &segment, 1, row_, row_step,
                         m_ + point * m_step_ + t * plan_.block_columns + k, plan_.block_columns,
                         first == 0 ? into : Into::kAdd);
          }
        }
      }
    }
  }

  void transform_results() {
    void* tile[16];
    const int64_t channel = group_ * p_.group_out() + k_, bytes = bytes_of(p_.result_dtype());
    const T* bias = static_cast<const T*>(epilogue_.bias);
    if (bias != nullptr) bias += channel;
    for (int64_t t = 0; t < count_; ++t) {
      plan_.tiles.point_at_results(first_ + t, static_cast<void*>(result_ + channel * bytes), bytes,
                                   static_cast<void*>(nullptr), tile);
      transforms_.output(m_ + t * plan_.block_columns, m_step_, columns_, bias, epilogue_.relu, p_.unrounded,
                         tile);
    }
  }

  const WinogradPlan& plan_;
  const ConvProblem& p_;
  const T* source_;
  const float* transformed_;
  const Epilogue epilogue_;
  char* result_;
  WinogradFilter<T> filter_;
  const WinogradTransforms<T>& transforms_;
  const ActivationTiles<float>& products_;
  const std::vector<T> zeros_;
  const int64_t row_, v_step_, m_step_, u_step_;
  float *const v_, *const m_, *const u_;
  int64_t group_ = 0, k_ = 0, columns_ = 0, first_ = 0, count_ = 0;
};

template <typename T>
Work winograd_activation_of(const ConvProblem& problem, Major filter_major, Isa isa, const void* source_data,
                            const void* filter_data, Epilogue epilogue, void* result, void* workspace) {
  const auto plan = std::make_shared<const WinogradPlan>(problem, filter_major, isa);
  const T* source = static_cast<const T*>(source_data);
  const T* filter = static_cast<const T*>(filter_data);
  float* transformed = static_cast<float*>(workspace);
  Work work;
  if (plan->shared)
    work.stages.push_back(
        {filter_tasks(*plan), [=](int64_t task) { transform_filter(*plan, task, filter, transformed); }});
  work.stages.push_back({plan->tasks(), [=](int64_t task) {
                           WinogradRunner<T>(*plan, source, filter, transformed, epilogue, result).run(task);
                         }});
  return work;
}

Work winograd_activation(const ConvProblem& problem, Major filter_major, Isa isa, const void* source,
                         const void* filter, Epilogue epilogue, void* result, void* workspace) {
  const auto of = problem.dtype == DType::kBF16  ? winograd_activation_of<BFloat16>
                  : problem.dtype == DType::kF16 ? winograd_activation_of<Float16>
                                                 : winograd_activation_of<float>;
  return of(problem, filter_major, isa, source, filter, epilogue, result, workspace);
}

}  // namespace

Work winograd_fprop(const ConvProblem& problem, Isa isa, const void* x, const void* w, Epilogue epilogue,
                    void* y, void* workspace) {
  return winograd_activation(problem, Major::kMN, isa, x, w, epilogue, y, workspace);
}

Work winograd_dgrad(const ConvProblem& problem, Isa isa, const void* dy, const void* w, void* dx,
                    void* workspace) {
  return winograd_activation(problem.transpose(), Major::kK, isa, dy, w, {}, dx, workspace);
}

}  // namespace convgrad::cpu
