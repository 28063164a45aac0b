// Computes fprop, dgrad and wgrad pair by pair: each result sums the products of the positions that meet in
// it, and nothing else is read. Filter and activations are read in place.
//
// For problems with few products: with many taps or wide windows that lie on the padding, or with strides and
// dilations that leave few ties. There the copies, tiles and boxes of the other kernels would take most of
// the time.
#include <algorithm>
#include <memory>
#include <vector>

#include "common_src/dispatch.h"
#include "cpu_src/cleared_results.h"
#include "cpu_src/kernels.h"
#include "cpu_src/microkernels/pair_run.h"
#include "cpu_src/microkernels/rows.h"
#include "cpu_src/pairs/pair_lists.h"
#include "cpu_src/pairs/sums_in_runs.h"
#include "cpu_src/result.h"

namespace convgrad::cpu {
namespace {

// Terms of a sum that are added before they join the rest; more if each lane gets a share of them.
constexpr int64_t kTermsOfRun = 512, kRunOfLanes = 4 * kTermsOfRun;

// The layout of an array: the numbers of one position, and the steps along each axis.
struct Array {
  int64_t numbers, step[kAxes], image;

  Array(const ConvProblem& p, int64_t Axis::* size, int64_t numbers) : numbers(numbers), image(numbers) {
    for (int axis = kAxes; axis-- > 0;) {
      step[axis] = image;
      image *= p.axis[axis].*size;
    }
  }
};

struct PairsPlan {
  PairsPlan(Op op, const ConvProblem& p, Isa isa)
      : isa(isa),
        op(op),
        problem(p),
        result(op == Op::kFprop   ? Array(p, &Axis::output, p.out_channels)
               : op == Op::kDgrad ? Array(p, &Axis::input, p.in_channels)
                                  : Array(p, &Axis::taps, p.group_in() * p.out_channels)),
        a(op == Op::kDgrad ? Array(p, &Axis::output, p.out_channels) : Array(p, &Axis::input, p.in_channels)),
        b(op == Op::kWgrad ? Array(p, &Axis::output, p.out_channels)
                           : Array(p, &Axis::taps, p.group_in() * p.out_channels)),
        images(op == Op::kWgrad ? 1 : p.batch),
        summed_images(op == Op::kWgrad ? p.batch : 1) {
    double pairs = static_cast<double>(p.batch), longest = 0;
    for (int at = 0; at < kAxes; ++at) {
      axis[at] = axis_pairs(op, p.axis[at]);
      double of_axis = 0;
      for (const PairsOfResult& each : axis[at].results) of_axis += static_cast<double>(each.count);
      pairs *= of_axis;
      of_axis /= static_cast<double>(std::max<size_t>(axis[at].results.size(), 1));
      if (of_axis >= longest || (at == 2 && of_axis >= kLongRun)) longest = of_axis, inner = at;
    }
    // Results and pairs cost as much as a few products each.
    constexpr double kTaskProducts = 1 << 16, kTasks = 64, kOfResult = 64, kOfPair = 8;
    const double channels = static_cast<double>(p.group_in()) * static_cast<double>(p.out_channels);
    const double products = pairs * (channels + kOfPair) + static_cast<double>(results()) * kOfResult;
    tasks = std::min(results(),
                     std::max<int64_t>(static_cast<int64_t>(std::min(products / kTaskProducts, kTasks)), 1));
  }

  // Returns the number of results with a pair, of all images.
  int64_t results() const {
    return images *
           static_cast<int64_t>(axis[0].results.size() * axis[1].results.size() * axis[2].results.size());
  }
  bool any_without() const { return results() * result.numbers < images * result.image; }

  const Isa isa;
  const Op op;
  const ConvProblem problem;
  const Array result, a, b;
  const int64_t images, summed_images;
  AxisPairs axis[kAxes];
  int inner = 0;  // the axis along which pairs form a run
  int64_t tasks;
};

template <typename T>
class PairsRunner {
 public:
  using S = Sum<T>;

  PairsRunner(const PairsPlan& plan, const T* a, const T* b, const Epilogue& epilogue, Result<T> result)
      : plan_(plan),
        p_(plan.problem),
        runs_(CONVGRAD_FOR_ISA(plan.isa, pair_runs<T>())),
        rows_(row_conversions_of<T>(plan.isa)),
        copies_(row_conversions_of<S>(plan.isa)),
        a_(a),
        b_(b),
        epilogue_(epilogue),
        result_(result),
        channels_(plan.op == Op::kFprop   ? p_.group_in()
                  : plan.op == Op::kDgrad ? p_.group_out()
                                          : 1),
        sums_(plan.result.numbers) {
    const bool in_lanes = plan.op == Op::kDgrad || (p_.groups == 1 && p_.out_channels == 1);
    const int64_t terms = in_lanes ? kRunOfLanes : kTermsOfRun;
    run_channels_ = std::min(channels_, terms);
    run_pairs_ = std::clamp<int64_t>(terms / channels_, 1, kTermsOfRun);
  }

  void run(int64_t first, int64_t last) {
    const AxisPairs* axis = plan_.axis;
    const size_t count[kAxes] = {axis[0].results.size(), axis[1].results.size(), axis[2].results.size()};
    // Counts up instead of dividing: a division takes as long as some results.
    size_t place[kAxes];
    int64_t image = first;
    if (first == last) return;
    for (int at = kAxes; at-- > 0; image /= static_cast<int64_t>(count[at]))
      place[at] = static_cast<size_t>(image % static_cast<int64_t>(count[at]));
    for (int64_t at = first; at < last; ++at) {
      add_up(image, axis[0].results[place[0]], axis[1].results[place[1]], axis[2].results[place[2]]);
      int moved = kAxes - 1;
      while (moved >= 0 && ++place[moved] == count[moved]) place[moved--] = 0;
      if (moved < 0) ++image;
    }
  }

 private:
  void add_up(int64_t image, const PairsOfResult& of0, const PairsOfResult& of1, const PairsOfResult& of2) {
    const PairsOfResult* const of[kAxes] = {&of0, &of1, &of2};
    const int inner = plan_.inner, one = inner == 0 ? 1 : 0, other = inner == 2 ? 1 : 2;
    const Array &a_array = plan_.a, &b_array = plan_.b, &dst = plan_.result;
    int64_t a_first = 0, b_first = 0, at = image * dst.image, a_step[kAxes], b_step[kAxes];
    for (int axis = 0; axis < kAxes; ++axis) {
      a_first += of[axis]->a * a_array.step[axis];
      b_first += of[axis]->b * b_array.step[axis];
      at += of[axis]->result * dst.step[axis];
      a_step[axis] = plan_.axis[axis].a_step * a_array.step[axis];
      b_step[axis] = plan_.axis[axis].b_step * b_array.step[axis];
    }
    const int64_t numbers = dst.numbers, count = of[inner]->count;
    const bool single =
        channels_ == run_channels_ && plan_.summed_images * of0.count * of1.count * of2.count <= run_pairs_;
    const Result<T> to_store = result_ + at;
    sums_.begin(single, to_store.sums());
    int64_t in_run = 0;
    for (int64_t n = image; n < image + plan_.summed_images; ++n) {
      const T* const a = a_ + n * a_array.image + a_first;
      const T* const b = b_ + (plan_.op == Op::kWgrad ? n * b_array.image : 0) + b_first;
      for (int64_t j0 = 0; j0 < of[one]->count; ++j0) {
        for (int64_t j1 = 0; j1 < of[other]->count; ++j1) {
          const T* const a_row = a + j0 * a_step[one] + j1 * a_step[other];
          const T* const b_row = b + j0 * b_step[one] + j1 * b_step[other];
          for (int64_t j = 0; j < count;) {
            const int64_t part = std::min(count - j, run_pairs_ - in_run);
            add_channels(
                {a_row + j * a_step[inner], b_row + j * b_step[inner], a_step[inner], b_step[inner], part});
            j += part;
            in_run += part;
            if (in_run == run_pairs_) sums_.end_run(), in_run = 0;
          }
        }
      }
    }
    S* const total = sums_.totals();
    if (epilogue_.any()) rows_.finish(epilogue_, 0, total, numbers, 1, numbers);
    if (total != to_store.sums()) to_store.store(rows_, copies_, total, 0, 0, 1, numbers);
  }

  // Adds a run's pairs over all channels that are summed; many channels are several runs.
  void add_channels(PairRun<T> run) {
    const int64_t b_step = plan_.op == Op::kFprop ? p_.out_channels : 1;
    for (int64_t first = 0;; first += run_channels_) {
      const int64_t channels = std::min(run_channels_, channels_ - first);
      add(run, channels, sums_.run());
      if (first + channels == channels_) return;
      sums_.end_run();
      run.a += channels;
      run.b += channels * b_step;
    }
  }

  // Adds the run's pairs over `channels` of the channels that are summed.
  void add(const PairRun<T>& run, int64_t channels, S* sums) const {
    const int64_t C = plan_.op == Op::kFprop ? channels : p_.group_in(),
                  K = plan_.op == Op::kDgrad ? channels : p_.group_out(), row = p_.out_channels;
    const bool one_in = p_.group_in() == 1, one_out = p_.group_out() == 1;
    if (one_in && one_out) return runs_.lanes(run, p_.groups, sums);
    if (p_.groups == 1 && (one_in || one_out)) {
      // With one channel on a side, the filter's rows, or the sums, are as long as the other side's channels.
      const bool one_in_a = plan_.op == Op::kDgrad ? one_out : one_in;
      const bool one_in_result = plan_.op == Op::kFprop ? one_out : plan_.op == Op::kDgrad && one_in;
      if (one_in_a) return runs_.rows(run, 1, C * K, C * K, sums);
      if (one_in_result) return runs_.dots(run, 1, C * K, C * K, sums);
      return runs_.rows({run.b, run.a, run.b_step, run.a_step, run.count}, 1, C, C, sums);
    }
    for (int64_t group = 0; group < p_.groups; ++group) {
      PairRun<T> of_group = run;
      if (plan_.op == Op::kFprop) {
        of_group.a += group * p_.group_in();
        of_group.b += group * K;
        runs_.rows(of_group, C, K, row, sums + group * K);
      } else if (plan_.op == Op::kDgrad) {
        of_group.a += group * p_.group_out();
        of_group.b += group * p_.group_out();
        runs_.dots(of_group, C, K, row, sums + group * C);
      } else {
        of_group.a += group * C;
        of_group.b += group * K;
        runs_.outer(of_group, C, K, row, sums + group * K);
      }
    }
  }

  const PairsPlan& plan_;
  const ConvProblem& p_;
  const PairRuns<T>& runs_;
  const RowConversions<T>& rows_;
  const RowConversions<S>& copies_;
  const T *const a_, *const b_;
  const Epilogue epilogue_;
  const Result<T> result_;
  const int64_t channels_;            // channels of each pair that are summed
  int64_t run_channels_, run_pairs_;  // channels, and pairs, in a run
  SumsInRuns<S> sums_;
};

Work pairs(Op op, const ConvProblem& problem, Isa isa, const void* a_data, const void* b_data,
           Epilogue epilogue, void* result_data) {
  return dispatch(problem.dtype, [&](auto stored) {
    using T = typename decltype(stored)::type;
    const auto plan = std::make_shared<const PairsPlan>(op, problem, isa);
    const T* a = static_cast<const T*>(a_data);
    const T* b = static_cast<const T*>(b_data);
    const Result<T> result(result_data, problem);
    const int64_t numbers = plan->result.numbers, pixels = plan->images * plan->result.image / numbers;
    Work work;
    if (plan->any_without()) {
      work.stages.push_back({clearing_tasks(pixels, numbers),
                             [=](int64_t task) { clear_results(pixels, numbers, task, epilogue, result); }});
    }
    work.stages.push_back({plan->tasks, [=](int64_t task) {
                             PairsRunner<T> runner(*plan, a, b, epilogue, result);
                             runner.run(plan->results() * task / plan->tasks,
                                        plan->results() * (task + 1) / plan->tasks);
                           }});
    return work;
  });
}

}  // namespace

Work pairs_fprop(const ConvProblem& problem, Isa isa, const void* x, const void* w, Epilogue epilogue,
                 void* y) {
  return pairs(Op::kFprop, problem, isa, x, w, epilogue, y);
}

Work pairs_dgrad(const ConvProblem& problem, Isa isa, const void* dy, const void* w, void* dx) {
  return pairs(Op::kDgrad, problem, isa, dy, w, {}, dx);
}

Work pairs_wgrad(const ConvProblem& problem, Isa isa, const void* x, const void* dy, void* dw) {
  return pairs(Op::kWgrad, problem, isa, x, dy, {}, dw);
}

}  // namespace convgrad::cpu
