// y[n,o,k] = sum over c of x[n,i,c] * w[c,k] where both have few channels, which would leave most lanes of a
// vector empty: a stretch of pixels is split into planes of one channel each, whose lanes are pixels, and the
// sums of planes are joined into pixels again, all within the first-level cache. dgrad is the same over the
// transposed problem.
#include "cpu_src/pointwise.h"

#include <algorithm>
#include <memory>

#include "cpu_src/aligned.h"
#include "cpu_src/kernels.h"
#include "cpu_src/microkernels/channel_planes.h"
#include "cpu_src/regions.h"
#include "cpu_src/result.h"
#include "ffi_src/dispatch.h"

namespace convgrad::cpu {
namespace {

// Pixels that are split at once: planes of as many stay in the first-level cache, sources and results.
constexpr int64_t kStretch = 256;

struct PointwisePlan {
  PointwisePlan(const ConvProblem& p, bool transposed, Isa isa)
      : isa(isa), transposed(transposed), problem(merge_trivial_axes(p)) {
    constexpr int64_t kPiece = 1 << 14;
    const Axis& row = problem.axis[2];
    // The part of a row that lies on the input.
    first = std::clamp<int64_t>(row.pad_lo, 0, row.output);
    last = std::clamp<int64_t>(row.input + row.pad_lo, first, row.output);
    pieces = (row.output + kPiece - 1) / kPiece;
    items = problem.batch * problem.axis[0].output * problem.axis[1].output * pieces;
    constexpr int64_t kTasks = 64;
    tasks = std::clamp<int64_t>(problem.batch * problem.outputs() / kPiece, 1, std::min(items, kTasks));
  }

  const Isa isa;
  const bool transposed;
  const ConvProblem problem;  // trivial axes merged
  int64_t first, last, pieces, items, tasks;
};

template <typename T>
class PointwiseRunner {
 public:
  using S = Sum<T>;

  PointwiseRunner(const PointwisePlan& plan, const T* source, const T* filter, const Epilogue& epilogue,
                  Result<T> result)
      : plan_(plan),
        p_(plan.problem),
        planes_(CONVGRAD_FOR_ISA(plan.isa, channel_planes<T>())),
        sum_planes_(CONVGRAD_FOR_ISA(plan.isa, channel_planes<S>())),
        sum_(CONVGRAD_FOR_ISA(plan.isa, plane_sum<S>())),
        source_(source),
        epilogue_(epilogue),
        result_(result) {
    split_.resize(p_.in_channels * kStretch);
    joined_.resize(p_.out_channels * kStretch);
    std::fill(split_.data(), split_.data() + p_.in_channels * kStretch, S{0});
    // factor[k][c] of a result k and its group's sources.
    const int64_t in = p_.group_in(), out = p_.group_out();
    for (int64_t k = 0; k < p_.out_channels; ++k) {
      for (int64_t c = 0; c < in; ++c) {
        // w[c,k]: fprop's source is c and its result k, dgrad's the other way round.
        const int64_t at =
            plan.transposed ? k % out * p_.in_channels + k / out * in + c : c * p_.out_channels + k;
        factors_[k * in + c] = widen(filter[at]);
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
    const Result<T> to = result_ + line * axis[2].output * p_.out_channels;
    if (i0 == kNone || i1 == kNone) return clear(to, begin, end);
    const int64_t first = std::clamp(plan_.first, begin, end), last = std::clamp(plan_.last, first, end);
    clear(to, begin, first);
    clear(to, last, end);
    const T* row =
        source_ +
        (((n * axis[0].input + i0) * axis[1].input + i1) * axis[2].input - axis[2].pad_lo) * p_.in_channels;
    for (int64_t at = first; at < last; at += kStretch)
      stretch(row + at * p_.in_channels, to + at * p_.out_channels, std::min(kStretch, last - at));
  }

 private:
  void stretch(const T* from, Result<T> to, int64_t pixels) {
    planes_.split[p_.in_channels](from, pixels, split_.data(), kStretch);
    const int64_t in = p_.group_in();
    for (int64_t k = 0; k < p_.out_channels; ++k) {
      const S bias = epilogue_.bias_of<T>(k);
      sum_(split_.data() + k / p_.group_out() * in * kStretch, kStretch, factors_ + k * in, in,
           epilogue_.bias != nullptr ? &bias : nullptr, epilogue_.relu, joined_.data() + k * kStretch,
           pixels);
    }
    store(joined_.data(), to, pixels);
  }

  void store(const S* planes, Result<T> to, int64_t pixels) const {
    if (to.sums() != nullptr)
      sum_planes_.join[p_.out_channels](planes, kStretch, pixels, to.sums());
    else
      planes_.join[p_.out_channels](planes, kStretch, pixels, static_cast<T*>(const_cast<void*>(to.data())));
  }

  // Results on the padding.
  void clear(Result<T> to, int64_t first, int64_t last) const {
    for (int64_t at = first; at < last; ++at) {
      for (int64_t k = 0; k < p_.out_channels; ++k)
        to.store_one(at * p_.out_channels + k, epilogue_.finish_channel<T>(S{0}, k));
    }
  }

  const PointwisePlan& plan_;
  const ConvProblem& p_;
  const ChannelPlanes<T>& planes_;
  const ChannelPlanes<S>& sum_planes_;
  const PlaneSum<S> sum_;
  const T* const source_;
  const Epilogue epilogue_;
  const Result<T> result_;
  S factors_[kMostPlanes * kMostPlanes];
  AlignedBuffer<S> split_, joined_;  // planes of a stretch
};

Work pointwise(const ConvProblem& problem, bool transposed, Isa isa, const void* source_data,
               const void* filter_data, Epilogue epilogue, void* result_data) {
  return dispatch(problem.dtype, [&](auto stored) {
    using T = typename decltype(stored)::type;
    const auto plan = std::make_shared<const PointwisePlan>(problem, transposed, isa);
    const T* source = static_cast<const T*>(source_data);
    const T* filter = static_cast<const T*>(filter_data);
    const Result<T> result(result_data, problem);
    return Work{{{plan->tasks, [=](int64_t task) {
                    PointwiseRunner<T> runner(*plan, source, filter, epilogue, result);
                    const int64_t last = plan->items * (task + 1) / plan->tasks;
                    for (int64_t item = plan->items * task / plan->tasks; item < last; ++item)
                      runner.run(item);
                  }}}};
  });
}

}  // namespace

bool pointwise_serves(const ConvProblem& p) {
  return p.taps() == 1 && p.in_channels <= kMostPlanes && p.out_channels <= kMostPlanes &&
         p.axis[2].stride == 1 && p.axis[2].input_dilation == 1;
}

bool pointwise_pays(const ConvProblem& p) {
  constexpr int64_t kManyPixels = 64;
  return pointwise_serves(p) && merge_trivial_axes(p).axis[2].output >= kManyPixels;
}

Work pointwise_fprop(const ConvProblem& problem, Isa isa, const void* x, const void* w, Epilogue epilogue,
                     void* y) {
  return pointwise(problem, false, isa, x, w, epilogue, y);
}

Work pointwise_dgrad(const ConvProblem& problem, Isa isa, const void* dy, const void* w, void* dx) {
  return pointwise(problem.transpose(), true, isa, dy, w, {}, dx);
}

}  // namespace convgrad::cpu
