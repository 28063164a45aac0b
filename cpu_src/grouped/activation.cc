// Computes y[n,o,k] = sum over r, c of x[n,i,c] * w[r,c,k] for small groups: a vector's lanes are result
// channels of several groups, and each lane meets the sources of its own group. dgrad is the same over the
// transposed problem.
#include <algorithm>
#include <memory>
#include <vector>

#include "common_src/dispatch.h"
#include "common_src/integers.h"
#include "common_src/major.h"
#include "cpu_src/aligned.h"
#include "cpu_src/grouped/plan.h"
#include "cpu_src/grouped/source_rows.h"
#include "cpu_src/kernels.h"
#include "cpu_src/microkernels/grouped_tile.h"
#include "cpu_src/microkernels/rows.h"
#include "cpu_src/read_ahead.h"
#include "cpu_src/result.h"

namespace convgrad::cpu {
namespace {

// The items of work: results split by rows, panels and strips, in this order.
struct Items {
  int64_t row_parts, count, tasks;

  explicit Items(const GroupedPlan& plan) {
    const int64_t wanted = grouped_tasks(plan.problem),
                  across = std::max<int64_t>(plan.strips * plan.panels, 1);
    const int64_t images = std::min(plan.problem.batch * plan.problem.axis[0].output, plan.rows);
    row_parts = std::clamp<int64_t>(divide_up(wanted, across), std::min(images, wanted),
                                    std::max<int64_t>(plan.rows, 1));
    count = plan.rows > 0 ? row_parts * across : 0;
    tasks = std::min(wanted, count);
  }
};

// Vectors of filter rows, one per tap (in packed order) and source channel, `step` elements apart.
template <typename S>
struct FilterRows {
  const S* first;
  int64_t vector_step, step;
};

// Packs one vector of the filter as [tap][c][lane].
template <typename T>
void pack_vector(const GroupedPlan& plan, int64_t vector, const T* filter, Sum<T>* packed) {
  const ConvProblem& p = plan.problem;
  const int64_t in = p.group_in(), out = p.group_out();
  packed += vector * plan.terms() * plan.lanes;
  for (int64_t tap = 0; tap < p.taps(); ++tap) {
    const int64_t r = plan.filter_tap(tap);
    for (int64_t lane = 0; lane < plan.lanes; ++lane) {
      const int64_t k = vector * plan.lanes + lane, group = k / out;
      for (int64_t c = 0; c < in; ++c) {
        // w[r,c,k]: for fprop the source is c and the result k, for dgrad the reverse.
        const int64_t at = plan.filter_major == Major::kK
                               ? (r * out + k % out) * p.in_channels + group * in + c
                               : (r * in + c) * p.out_channels + k;
        packed[(tap * in + c) * plan.lanes + lane] = k < p.out_channels ? widen(filter[at]) : Sum<T>{0};
      }
    }
  }
}

// The buffers and position of one thread.
template <typename T>
class GroupedRunner {
 public:
  using S = Sum<T>;

  GroupedRunner(const GroupedPlan& plan, const T* source, FilterRows<S> filter, const Epilogue& epilogue,
                Result<T> result)
      : plan_(plan),
        tiles_(CONVGRAD_FOR_ISA(plan.isa, grouped_tiles<S>())),
        conversions_(row_conversions_of<T>(plan.isa)),
        copies_(row_conversions_of<S>(plan.isa)),
        filter_(filter),
        epilogue_(epilogue),
        result_(result),
        sources_(plan, source) {}

  void run(const Items& items, int64_t item) {
    const int64_t panel = item / plan_.strips % plan_.panels, part = item / plan_.strips / plan_.panels;
    strip_ = plan_.strip(item % plan_.strips);
    first_vector_ = panel * plan_.panel_vectors;
    vectors_ = std::min(plan_.panel_vectors, plan_.vectors - first_vector_);
    sources_.hold(first_vector_, vectors_, plan_.layout_by_phase(strip_));
    sums_.resize((strip_.last - strip_.first) * vectors_ * plan_.lanes);
    list_tiles();
    const int64_t first = plan_.rows * part / items.row_parts,
                  last = plan_.rows * (part + 1) / items.row_parts;
    ahead_ = plan_.ahead(strip_, last - first);
    for (int64_t row = first; row < last; ++row) run_row(plan_.result_row(row));
  }

 private:
  // A tile of every row: pixels of one phase, `pixel_step` apart from strip_.first + `pixel` on.
  struct Tile {
    int64_t pixel, pixels, pixel_step;
    int64_t source;      // of its first column, in the buffered rows
    int64_t filter_row;  // its phase's first row, within those of a row of taps
    int64_t offset, terms;
  };

  void list_tiles() {
    list_.clear();
    offsets_.clear();
    for (const StripPhase& part : plan_.phases_of(strip_)) {
      const Region& phase = part.phase;
      const int64_t first_source = phase.source_first + phase.source_step * part.first;
      const int64_t offset = static_cast<int64_t>(offsets_.size());
      for (int64_t t = 0; t < phase.taps; ++t) {
        for (int64_t c = 0; c < plan_.copies(); ++c)
          offsets_.push_back(sources_.layout().offset(first_source + phase.tap_source_step * t, c));
      }
      const int64_t count = part.last - part.first, tiles = divide_up(count, tiles_.most_pixels);
      for (int64_t tile = 0; tile < tiles; ++tile) {
        const int64_t first = count * tile / tiles, last = count * (tile + 1) / tiles;
        list_.push_back({phase.result_first + phase.result_step * (part.first + first) - strip_.first,
                         last - first, phase.result_step, first * plan_.lanes,
                         phase.tap_first * plan_.copies(), offset, phase.taps * plan_.copies()});
      }
    }
  }

  void run_row(const ResultRow& row) {
    const ConvProblem& p = plan_.problem;
    const Region &tap0 = row.tap0, &tap1 = row.tap1;
    tap_rows_.clear();
    const T* next = nullptr;  // the row to prefetch from
    for (int64_t t0 = 0; t0 < tap0.taps; ++t0) {
      for (int64_t t1 = 0; t1 < tap1.taps; ++t1) {
        const int64_t i0 = tap0.source_first + tap0.tap_source_step * t0;
        const int64_t i1 = tap1.source_first + tap1.tap_source_step * t1;
        const int64_t tap_row = (tap0.tap_first + t0) * p.axis[1].taps + tap1.tap_first + t1;
        tap_rows_.push_back({sources_.row(row.image, t0, i0, i1),
                             filter_.first + tap_row * p.axis[2].taps * plan_.copies() * filter_.step});
        next = sources_.at(row.image, i0, i1);
      }
    }
    const int64_t channel = first_vector_ * plan_.lanes, width = vectors_ * plan_.lanes;
    const Result<T> result =
        result_ + (row.index * p.axis[2].output + strip_.first) * p.out_channels + channel;
    for (int64_t v = 0; v < vectors_; ++v) {
      if (plan_.reads_ahead) {
        // Prefetches a part of what the next row will read and write.
        constexpr int64_t kBytes = sizeof(T);
        const int64_t pixels = strip_.last - strip_.first, sources = next ? sources_.layout().positions() : 0;
        for (int64_t ahead = 1; ahead <= ahead_.rows(tap1); ++ahead) {
          prefetch_pixels<false>(next + ahead * ahead_.source, p.in_channels * kBytes,
                                 sources_.channels() * kBytes, sources * v / vectors_,
                                 sources * (v + 1) / vectors_);
        }
        prefetch_pixels<true>((result + ahead_.result).data(), p.out_channels * result.number_bytes(),
                              width * result.number_bytes(), pixels * v / vectors_,
                              pixels * (v + 1) / vectors_);
      }
      for (const Tile& tile : list_) run_tile(tile, v);
    }
    const int64_t channels = std::min(width, p.out_channels - channel), pixels = strip_.last - strip_.first;
    if (epilogue_.any()) conversions_.finish(epilogue_, channel, sums_.data(), width, pixels, channels);
    if (channels == width && channels == p.out_channels)
      result.store(conversions_, copies_, sums_.data(), 0, 0, 1, pixels * channels);
    else
      result.store(conversions_, copies_, sums_.data(), width, p.out_channels, pixels, channels);
  }

  // Adds sums of more terms than a run run by run.
  void run_tile(const Tile& tile, int64_t v) {
    constexpr int64_t kRun = 512;
    const GroupedTile<S> run = tiles_.tile[tile.pixels];
    const int64_t rows = static_cast<int64_t>(tap_rows_.size()), step = filter_.step;
    const int64_t width = vectors_ * plan_.lanes;
    const int64_t source = v * sources_.layout().vector_step + tile.source;
    const int64_t filter = (first_vector_ + v) * filter_.vector_step + tile.filter_row * step;
    const int64_t* offsets = offsets_.data() + tile.offset;
    S* sums = sums_.data() + tile.pixel * width + v * plan_.lanes;
    if (rows * tile.terms <= kRun) {
      run(tap_rows_.data(), rows, source, filter, offsets, tile.terms, step, sums, tile.pixel_step * width,
          false);
      return;
    }
    const int64_t rows_in_run = std::max<int64_t>(kRun / tile.terms, 1);
    for (int64_t row = 0; row < rows; row += rows_in_run) {
      for (int64_t term = 0; term < tile.terms; term += kRun) {
        run(tap_rows_.data() + row, std::min(rows - row, rows_in_run), source, filter + term * step,
            offsets + term, std::min(tile.terms - term, kRun), step, sums, tile.pixel_step * width,
            row + term > 0);
      }
    }
  }

  const GroupedPlan& plan_;
  const GroupedTiles<S>& tiles_;
  const RowConversions<T>& conversions_;
  const RowConversions<S>& copies_;
  const FilterRows<S> filter_;
  const Epilogue epilogue_;
  const Result<T> result_;
  Strip strip_{0, 0};
  Ahead ahead_{};
  int64_t first_vector_ = 0, vectors_ = 0;
  SourceRows<T> sources_;
  AlignedBuffer<S> sums_;  // of a row of the strip: [pixel][vector][lane]
  std::vector<Tile> list_;
  std::vector<int64_t> offsets_;  // of a phase's terms, relative to its tiles' sources
  std::vector<TapRow<S>> tap_rows_;
};

Work grouped_activation(const ConvProblem& problem, Major filter_major, Isa isa, const void* source_data,
                        const void* filter_data, Epilogue epilogue, void* result_data, void* workspace) {
  return dispatch(problem.dtype, [&](auto stored) {
    using T = typename decltype(stored)::type;
    using S = Sum<T>;
    const auto plan = std::make_shared<const GroupedPlan>(problem, filter_major, isa);
    const T* source = static_cast<const T*>(source_data);
    const T* filter = static_cast<const T*>(filter_data);
    const Result<T> result(result_data, problem);
    S* packed = static_cast<S*>(workspace);
    const Items items(*plan);
    Work work;
    FilterRows<S> rows{packed, plan->terms() * plan->lanes, plan->lanes};
    if (!grouped_reads_in_place(problem, filter_major)) {
      work.stages.push_back(
          {plan->vectors, [=](int64_t vector) { pack_vector(*plan, vector, filter, packed); }});
    } else if constexpr (std::is_same_v<T, S>) {
      // Transposed, the taps are reversed, and a group has one channel on each side.
      const int64_t channels = problem.out_channels;
      rows = filter_major == Major::kK
                 ? FilterRows<S>{filter + (problem.taps() - 1) * channels, plan->lanes, -channels}
                 : FilterRows<S>{filter, plan->lanes, channels};
    }
    work.stages.push_back({items.tasks, [=](int64_t task) {
                             GroupedRunner<T> runner(*plan, source, rows, epilogue, result);
                             const int64_t last = items.count * (task + 1) / items.tasks;
                             for (int64_t item = items.count * task / items.tasks; item < last; ++item)
                               runner.run(items, item);
                           }});
    return work;
  });
}

}  // namespace

Work grouped_fprop(const ConvProblem& problem, Isa isa, const void* x, const void* w, Epilogue epilogue,
                   void* y, void* workspace) {
  return grouped_activation(problem, Major::kMN, isa, x, w, epilogue, y, workspace);
}

Work grouped_dgrad(const ConvProblem& problem, Isa isa, const void* dy, const void* w, void* dx,
                   void* workspace) {
  return grouped_activation(problem.transpose(), Major::kK, isa, dy, w, {}, dx, workspace);
}

}  // namespace convgrad::cpu
