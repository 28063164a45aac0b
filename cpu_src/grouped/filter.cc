// Computes dw[r,c,k] = sum over n, o of x[n,i,c] * dy[n,o,k] for small groups: a vector's lanes are channels
// k of several groups, x is spread over them as in fprop, and a vector of dy meets all taps of a few rows at
// once.
//
// Terms are added in runs, then the runs in order, and if there are few channels the positions are split into
// parts whose sums are added in order.
#include <algorithm>
#include <memory>
#include <vector>

#include "common_src/dispatch.h"
#include "common_src/integers.h"
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

// Runs one task: a panel's sums over one part of the positions.
template <typename T>
class GroupedFilterRunner {
 public:
  using S = Sum<T>;

  GroupedFilterRunner(const GroupedPlan& plan, const T* x, const T* dy, int64_t panel)
      : plan_(plan),
        tiles_(CONVGRAD_FOR_ISA(plan.isa, grouped_tiles<S>())),
        rows_(row_conversions_of<S>(plan.isa)),
        spread_(CONVGRAD_FOR_ISA(plan.isa, spread<T>())),
        dy_(dy),
        first_vector_(panel * plan.panel_vectors),
        vectors_(std::min(plan.panel_vectors, plan.vectors - first_vector_)),
        size_(vectors_ * plan.terms() * plan.lanes),
        sources_(plan, x),
        run_(size_),
        total_(size_) {
    std::fill_n(run_.data(), size_, S{0});
    std::fill_n(total_.data(), size_, S{0});
    for (int64_t v = 0; v < vectors_; ++v) {
      const int64_t channel = (first_vector_ + v) * plan.lanes;
      dy_lanes_.push_back(
          {channel, std::min<int64_t>(plan.lanes, plan.problem.out_channels - channel), 1, true, nullptr});
    }
  }

  void sum(int64_t part, int64_t parts) {
    const int64_t units = plan_.strips * plan_.rows, last = units * (part + 1) / parts;
    int64_t strip_index = kNone, in_run = 0;
    for (int64_t unit = units * part / parts; unit < last; ++unit) {
      if (unit / plan_.rows != strip_index) {
        strip_index = unit / plan_.rows;
        strip_ = plan_.strip(strip_index);
        ahead_ = plan_.ahead(strip_, plan_.rows);
        jobs_.clear();
        sources_.hold(first_vector_, vectors_, plan_.layout_by_position(strip_));
        dy_rows_.resize(vectors_ * (strip_.last - strip_.first) * plan_.lanes);
      }
      sum_row(plan_.result_row(unit % plan_.rows));
      in_run += strip_.last - strip_.first;
      if (in_run >= kRun) end_run(), in_run = 0;
    }
    end_run();
  }

  // Stores the sums in the filter's order in `dw`, whose type is U.
  template <typename U>
  void store(U* dw) {
    const ConvProblem& p = plan_.problem;
    const auto& conversions = row_conversions_of<U>(plan_.isa);
    for (int64_t v = 0; v < vectors_; ++v) {
      const int64_t channel = (first_vector_ + v) * plan_.lanes;
      for (int64_t tap = 0; tap < p.taps(); ++tap) {
        conversions.narrow(total_.data() + (v * p.taps() + tap) * plan_.copies() * plan_.lanes, plan_.lanes,
                           dw + plan_.filter_tap(tap) * plan_.copies() * p.out_channels + channel,
                           p.out_channels, plan_.copies(),
                           std::min<int64_t>(plan_.lanes, p.out_channels - channel));
      }
    }
  }

 private:
  static constexpr int64_t kRun = 512;

  void end_run() {
    rows_.add(run_.data(), 0, total_.data(), 0, 1, size_);
    std::fill_n(run_.data(), size_, S{0});
  }

  void sum_row(const ResultRow& row) {
    const ConvProblem& p = plan_.problem;
    const Region &tap0 = row.tap0, &tap1 = row.tap1;
    sources_met_.clear();
    taps_met_.clear();
    for (int64_t t0 = 0; t0 < tap0.taps; ++t0) {
      for (int64_t t1 = 0; t1 < tap1.taps; ++t1) {
        sources_met_.push_back(sources_.row(row.image, t0, tap0.source_first + tap0.tap_source_step * t0,
                                            tap1.source_first + tap1.tap_source_step * t1));
        taps_met_.push_back(((tap0.tap_first + t0) * p.axis[1].taps + tap1.tap_first + t1) * p.axis[2].taps);
      }
    }
    if (sources_met_.empty()) return;
    const int64_t width = strip_.last - strip_.first;
    const T* dy = dy_ + (row.index * p.axis[2].output + strip_.first) * p.out_channels;
    spread_(dy, p.out_channels, width, dy_lanes_.data(), vectors_, dy_rows_.data(), plan_.lanes,
            width * plan_.lanes, 0);
    const T* next = sources_.at(row.image, tap0.source_first + tap0.tap_source_step * (tap0.taps - 1),
                                tap1.source_first + tap1.tap_source_step * (tap1.taps - 1));
    for (int64_t v = 0; v < vectors_; ++v) {
      if (plan_.reads_ahead) {
        // Prefetches a part of what the next row will read.
        constexpr int64_t kBytes = sizeof(T);
        const int64_t sources = sources_.layout().positions();
        for (int64_t ahead = 1; ahead <= ahead_.rows(tap1); ++ahead) {
          prefetch_pixels<false>(next + ahead * ahead_.source, p.in_channels * kBytes,
                                 sources_.channels() * kBytes, sources * v / vectors_,
                                 sources * (v + 1) / vectors_);
        }
        prefetch_pixels<false>(dy + ahead_.result + first_vector_ * plan_.lanes, p.out_channels * kBytes,
                               vectors_ * plan_.lanes * kBytes, width * v / vectors_,
                               width * (v + 1) / vectors_);
      }
      for (const Job& job : jobs_of(static_cast<int64_t>(sources_met_.size()))) run_job(job, v);
    }
  }

  // Sums some terms of some of the met rows over the pixels of one phase.
  struct Job {
    GroupedSums<S> run;
    int64_t first_row, rows;
    int64_t source, source_step, term_step;
    int64_t sum, sum_step;
    int64_t dy, dy_step, pixels;
  };

  // Returns the jobs for a number of met rows; kept while the strip is the same.
  const std::vector<Job>& jobs_of(int64_t rows) {
    if (static_cast<int64_t>(jobs_.size()) <= rows) jobs_.resize(rows + 1);
    std::vector<Job>& jobs = jobs_[rows];
    if (!jobs.empty()) return jobs;
    const RowLayout& layout = sources_.layout();
    const int64_t lanes = plan_.lanes, copies = plan_.copies();
    for (const StripPhase& part : plan_.phases_of(strip_)) {
      const Region& phase = part.phase;
      if (phase.taps == 0) continue;
      Job job{};
      job.source = layout.offset(phase.source_first + phase.source_step * part.first, 0);
      job.source_step = phase.source_step * layout.column_step;
      job.sum = phase.tap_first * copies * lanes;
      job.dy = (phase.result_first + phase.result_step * part.first - strip_.first) * lanes;
      job.dy_step = phase.result_step * lanes;
      job.pixels = part.last - part.first;
      if (phase.tap_source_step == 1) {
        // The copies of neighbouring taps are neighbours.
        job.term_step = job.sum_step = lanes;
        add_jobs(job, phase.taps * copies, rows, jobs);
        continue;
      }
      job.term_step = phase.tap_source_step * layout.column_step;
      job.sum_step = copies * lanes;
      for (int64_t c = 0; c < copies; ++c, job.source += layout.copy_step, job.sum += lanes)
        add_jobs(job, phase.taps, rows, jobs);
    }
    return jobs;
  }

  // Takes as many rows and terms at once as there are registers for their sums.
  void add_jobs(const Job& all, int64_t terms, int64_t rows, std::vector<Job>& jobs) const {
    const auto& table = all.term_step == plan_.lanes ? tiles_.dense_sums : tiles_.sums;
    const int64_t pieces = divide_up(terms, kMaxGroupedSums);
    for (int64_t piece = 0; piece < pieces; ++piece) {
      const int64_t first = terms * piece / pieces, count = terms * (piece + 1) / pieces - first;
      const int64_t most_rows = std::min<int64_t>(kMaxGroupedRows, kMaxGroupedSums / count);
      const int64_t batches = divide_up(rows, most_rows);
      for (int64_t batch = 0; batch < batches; ++batch) {
        Job job = all;
        job.first_row = rows * batch / batches;
        job.rows = rows * (batch + 1) / batches - job.first_row;
        job.run = table[job.rows][count];
        job.source += first * job.term_step;
        job.sum += first * job.sum_step;
        jobs.push_back(job);
      }
    }
  }

  void run_job(const Job& job, int64_t v) {
    const int64_t source = v * sources_.layout().vector_step + job.source;
    S* sums = run_.data() + v * plan_.terms() * plan_.lanes + job.sum;
    const S* x[kMaxGroupedRows];
    S* sum[kMaxGroupedRows];
    for (int64_t row = 0; row < job.rows; ++row) {
      x[row] = sources_met_[job.first_row + row] + source;
      sum[row] = sums + taps_met_[job.first_row + row] * plan_.copies() * plan_.lanes;
    }
    const S* dy = dy_rows_.data() + v * (strip_.last - strip_.first) * plan_.lanes + job.dy;
    job.run(x, sum, job.sum_step, job.source_step, job.term_step, dy, job.dy_step, job.pixels);
  }

  const GroupedPlan& plan_;
  const GroupedTiles<S>& tiles_;
  const RowConversions<S>& rows_;
  const Spread<T> spread_;
  const T* const dy_;
  const int64_t first_vector_, vectors_, size_;
  Strip strip_{0, 0};
  Ahead ahead_{};
  SourceRows<T> sources_;
  AlignedBuffer<S> dy_rows_, run_, total_;  // sums are [vector][tap][c][lane]
  std::vector<std::vector<Job>> jobs_;
  std::vector<LaneSources<S>> dy_lanes_;
  std::vector<const S*> sources_met_;
  std::vector<int64_t> taps_met_;  // in packed order, the first tap of each row
};

}  // namespace

Work grouped_wgrad(const ConvProblem& problem, Isa isa, const void* x_data, const void* dy_data,
                   void* dw_data, void* workspace) {
  return dispatch(problem.dtype, [&](auto stored) {
    using T = typename decltype(stored)::type;
    using S = Sum<T>;
    const auto plan = std::make_shared<const GroupedPlan>(problem, Major::kMN, isa);
    const T* x = static_cast<const T*>(x_data);
    const T* dy = static_cast<const T*>(dy_data);
    const Result<T> dw(dw_data, problem);
    S* partial = static_cast<S*>(workspace);
    const int64_t parts = grouped_wgrad_parts(problem), size = plan->terms() * problem.out_channels;
    Work work;
    work.stages.push_back({plan->panels * parts, [=](int64_t task) {
                             GroupedFilterRunner<T> runner(*plan, x, dy, task % plan->panels);
                             const int64_t part = task / plan->panels;
                             runner.sum(part, parts);
                             if (parts > 1)
                               runner.store(partial + part * size);
                             else if (S* sums = dw.sums())
                               runner.store(sums);
                             else
                               runner.store(static_cast<T*>(dw_data));
                           }});
    if (parts > 1) {
      constexpr int64_t kPiece = 4096;
      work.stages.push_back(
          {divide_up(size, kPiece), [=](int64_t task) {
             const int64_t first = task * kPiece, count = std::min(kPiece, size - first);
             const auto& sums = row_conversions_of<S>(plan->isa);
             S* total = partial + first;
             for (int64_t part = 1; part < parts; ++part)
               sums.add(partial + part * size + first, 0, total, 0, 1, count);
             (dw + first).store(row_conversions_of<T>(plan->isa), sums, total, 0, 0, 1, count);
           }});
    }
    return work;
  });
}

}  // namespace convgrad::cpu
