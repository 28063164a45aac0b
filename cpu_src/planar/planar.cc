// Computes y[n,o,k] = sum over r, c of x[n,i,c] * w[r,c,k] for few channels on both sides, which would leave
// most lanes of a vector empty. A stretch of pixels is split into planes of one channel each, whose lanes are
// pixels; the planes, each shifted by its tap, are summed and joined into pixels again, all within the
// first-level cache. dgrad is the same over the transposed problem.
#include "cpu_src/planar/planar.h"

#include <algorithm>
#include <memory>
#include <vector>

#include "common_src/dispatch.h"
#include "common_src/integers.h"
#include "common_src/major.h"
#include "cpu_src/aligned.h"
#include "cpu_src/flatten.h"
#include "cpu_src/kernels.h"
#include "cpu_src/microkernels/channel_planes.h"
#include "cpu_src/microkernels/rows.h"
#include "cpu_src/regions.h"
#include "cpu_src/result.h"

namespace convgrad::cpu {
namespace {

// The results that are computed at once, and how far their taps may reach past them: the planes of so many
// pixels, sources and results, stay in the first-level cache.
constexpr int64_t kStretch = 256, kMostSpan = 256;

int64_t span_of(const Axis& axis) { return (axis.taps - 1) * axis.filter_dilation; }

struct PlanarPlan {
  PlanarPlan(const ConvProblem& p, Major filter_major, Isa isa)
      : isa(isa), filter_major(filter_major), problem(flatten(p)) {
    constexpr int64_t kPiece = 1 << 14;
    const Axis& row = problem.axis[2];
    span = span_of(row);
    plane = kStretch + (span + 15) / 16 * 16;
    // The results of a row that have any source.
    first = std::clamp<int64_t>(row.pad_lo - span, 0, row.output);
    last = std::clamp<int64_t>(row.input + row.pad_lo, first, row.output);
    pieces = divide_up(row.output, kPiece);
    items = problem.batch * problem.axis[0].output * problem.axis[1].output * pieces;
    constexpr int64_t kTasks = 64;
    tasks = std::clamp<int64_t>(problem.batch * problem.outputs() / kPiece, 1, std::min(items, kTasks));
  }

  const Isa isa;
  const Major filter_major;
  const ConvProblem problem;  // pointwise axes merged
  int64_t span, plane;        // span: pixels past a stretch that it reads; plane: pixels of a plane
  int64_t first, last, pieces, items, tasks;
};

template <typename T>
class PlanarRunner {
 public:
  using S = Sum<T>;

  PlanarRunner(const PlanarPlan& plan, const T* source, const T* filter, const Epilogue& epilogue,
               Result<T> result)
      : plan_(plan),
        p_(plan.problem),
        planes_(CONVGRAD_FOR_ISA(plan.isa, channel_planes<S>())),
        rows_(row_conversions_of<T>(plan.isa)),
        sum_(CONVGRAD_FOR_ISA(plan.isa, plane_sum<S>())),
        source_(source),
        epilogue_(epilogue),
        result_(result) {
    const int64_t in = p_.group_in(), out = p_.group_out(), taps = p_.axis[2].taps;
    split_.resize(p_.in_channels * plan.plane);
    joined_.resize(p_.out_channels * kStretch);
    if constexpr (!std::is_same_v<T, S>)
      numbers_.resize(std::max(p_.in_channels * plan.plane, p_.out_channels * kStretch));
    std::fill(split_.data(), split_.data() + p_.in_channels * plan.plane, S{0});
    for (int64_t r = 0; r < taps; ++r) {
      for (int64_t c = 0; c < in; ++c) offsets_.push_back(c * plan.plane + r * p_.axis[2].filter_dilation);
    }
    for (int64_t k = 0; k < p_.out_channels; ++k) {
      for (int64_t r = 0; r < taps; ++r) {
        for (int64_t c = 0; c < in; ++c) {
          // w[r,c,k]: for fprop the source is c and the result k, for dgrad the reverse, with the taps
          // backwards.
          const int64_t at = plan.filter_major == Major::kK
                                 ? ((taps - 1 - r) * out + k % out) * p_.in_channels + k / out * in + c
                                 : (r * in + c) * p_.out_channels + k;
          factors_.push_back(widen(filter[at]));
        }
      }
    }
  }

  void run(int64_t item) {
    const Axis* axis = p_.axis;
    const int64_t line = item / plan_.pieces, piece = item % plan_.pieces;
    const int64_t o1 = line % axis[1].output, rest = line / axis[1].output, o0 = rest % axis[0].output,
                  n = rest / axis[0].output;
    const int64_t i0 = axis[0].input_at(o0, 0), i1 = axis[1].input_at(o1, 0);
    const int64_t begin = axis[2].output * piece / plan_.pieces,
                  end = axis[2].output * (piece + 1) / plan_.pieces;
    const Result<T> dst = result_ + line * axis[2].output * p_.out_channels;
    if (i0 == kNone || i1 == kNone) return clear(dst, begin, end);
    const int64_t first = std::clamp(plan_.first, begin, end), last = std::clamp(plan_.last, first, end);
    clear(dst, begin, first);
    clear(dst, last, end);
    const T* row = source_ + ((n * axis[0].input + i0) * axis[1].input + i1) * axis[2].input * p_.in_channels;
    for (int64_t at = first; at < last; at += kStretch)
      stretch(row, at - axis[2].pad_lo, dst + at * p_.out_channels, std::min(kStretch, last - at));
  }

 private:
  // Computes the results whose first tap meets the row's pixels from `source` on.
  void stretch(const T* row, int64_t source, Result<T> dst, int64_t pixels) {
    const int64_t count = pixels + plan_.span;
    // The part on the input, which is not empty.
    const int64_t begin = std::max<int64_t>(-source, 0), end = std::min(count, p_.axis[2].input - source);
    S* const planes = split_.data();
    planes_.split[p_.in_channels](
        widened(row + (source + begin) * p_.in_channels, (end - begin) * p_.in_channels), end - begin,
        planes + begin, plan_.plane);
    for (int64_t c = 0; c < p_.in_channels; ++c) {
      S* const plane = planes + c * plan_.plane;
      std::fill(plane, plane + begin, S{0});
      std::fill(plane + end, plane + count, S{0});
    }
    const int64_t terms = static_cast<int64_t>(offsets_.size());
    for (int64_t k = 0; k < p_.out_channels; ++k) {
      const S bias = epilogue_.bias_of<T>(k);
      sum_(planes + k / p_.group_out() * p_.group_in() * plan_.plane, offsets_.data(),
           factors_.data() + k * terms, terms, epilogue_.bias != nullptr ? &bias : nullptr, epilogue_.relu,
           joined_.data() + k * kStretch, pixels);
    }
    store(joined_.data(), dst, pixels);
  }

  // Numbers of 16 bits are converted in a pass of their own, so that planes are of the sums' types only.
  const S* widened(const T* numbers, int64_t count) {
    if constexpr (std::is_same_v<T, S>) {
      return numbers;
    } else {
      rows_.widen(numbers, 0, numbers_.data(), 0, 1, count);
      return numbers_.data();
    }
  }

  void store(const S* planes, Result<T> dst, int64_t pixels) {
    S* const sums = dst.sums();
    planes_.join[p_.out_channels](planes, kStretch, pixels, sums != nullptr ? sums : numbers_.data());
    if (sums == nullptr)
      rows_.narrow(numbers_.data(), 0, static_cast<T*>(const_cast<void*>(dst.data())), 0, 1,
                   pixels * p_.out_channels);
  }

  // Writes results on the padding.
  void clear(Result<T> dst, int64_t first, int64_t last) const {
    for (int64_t at = first; at < last; ++at) {
      for (int64_t k = 0; k < p_.out_channels; ++k)
        dst.store_one(at * p_.out_channels + k, epilogue_.finish_channel<T>(S{0}, k));
    }
  }

  const PlanarPlan& plan_;
  const ConvProblem& p_;
  const ChannelPlanes<S>& planes_;
  const RowConversions<T>& rows_;
  const PlaneSum<S> sum_;
  const T* const source_;
  const Epilogue epilogue_;
  const Result<T> result_;
  std::vector<int64_t> offsets_;     // of the terms, within a group's planes
  std::vector<S> factors_;           // of each result's terms
  AlignedBuffer<S> split_, joined_;  // planes of a stretch
  AlignedBuffer<S> numbers_;         // its pixels as wide numbers
};

Work planar(const ConvProblem& problem, Major filter_major, Isa isa, const void* source_data,
            const void* filter_data, Epilogue epilogue, void* result_data) {
  return dispatch(problem.dtype, [&](auto stored) {
    using T = typename decltype(stored)::type;
    const auto plan = std::make_shared<const PlanarPlan>(problem, filter_major, isa);
    const T* source = static_cast<const T*>(source_data);
    const T* filter = static_cast<const T*>(filter_data);
    const Result<T> result(result_data, problem);
    return Work{{{plan->tasks, [=](int64_t task) {
                    PlanarRunner<T> runner(*plan, source, filter, epilogue, result);
                    const int64_t last = plan->items * (task + 1) / plan->tasks;
                    for (int64_t item = plan->items * task / plan->tasks; item < last; ++item)
                      runner.run(item);
                  }}}};
  });
}

}  // namespace

bool planar_serves(const ConvProblem& p) {
  const Axis& row = p.axis[2];
  return p.axis[0].taps == 1 && p.axis[1].taps == 1 && p.in_channels <= kMostPlanes &&
         p.out_channels <= kMostPlanes && row.stride == 1 && row.input_dilation == 1 &&
         span_of(row) <= kMostSpan;
}

bool planar_pays(const ConvProblem& p) {
  constexpr int64_t kManyPixels = 64, kFewResults = 4;
  if (!planar_serves(p)) return false;
  const Axis row = flatten(p).axis[2];
  // The kernel multiplies zeros on the padding, and splits a stretch's span again for the next stretch.
  return row.output >= kManyPixels && row.output <= 2 * row.input && span_of(row) <= kStretch / 2 &&
         (row.taps == 1 || p.group_out() <= kFewResults);
}

Work planar_fprop(const ConvProblem& problem, Isa isa, const void* x, const void* w, Epilogue epilogue,
                  void* y) {
  return planar(problem, Major::kMN, isa, x, w, epilogue, y);
}

Work planar_dgrad(const ConvProblem& problem, Isa isa, const void* dy, const void* w, void* dx) {
  return planar(problem.transpose(), Major::kK, isa, dy, w, {}, dx);
}

}  // namespace convgrad::cpu
