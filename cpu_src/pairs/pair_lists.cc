#include "cpu_src/pairs/pair_lists.h"

#include <algorithm>

#include "common_src/relation.h"

namespace convgrad::cpu {
namespace {

struct Triple {
  int64_t o, r, i;
};

int64_t Triple::* result_of(Op op) {
  return op == Op::kFprop ? &Triple::o : op == Op::kDgrad ? &Triple::i : &Triple::r;
}
int64_t Triple::* first_of(Op op) { return op == Op::kDgrad ? &Triple::o : &Triple::i; }
int64_t Triple::* second_of(Op op) { return op == Op::kWgrad ? &Triple::o : &Triple::r; }

// Solves for the triples of a given o, r or i (`member` says which). Triples are ordered by r, and those of
// an r by o.
class TriplesOf {
 public:
  TriplesOf(const Axis& axis, int64_t Triple::* member)
      : axis_(axis),
        member_(member),
        other_(axis.transpose()),
        tied_(member == &Triple::o   ? taps_of_output(axis)
              : member == &Triple::r ? outputs_of_tap(axis)
                                     : taps_of_output(other_)) {}

  int64_t count() const {
    return member_ == &Triple::o ? axis_.output : member_ == &Triple::r ? axis_.taps : axis_.input;
  }

  // The first triple of `at`, their number, and the step from one to the next.
  struct Run {
    Triple first, step;
    int64_t count;
  };
  Run operator[](int64_t at) const {
    if (member_ == &Triple::o) {
      const Progression taps = tied_.from(axis_.pad_lo - at * axis_.stride);
      return {{at, taps.first, taps.partner}, {0, taps.step, taps.partner_step}, taps.count};
    }
    if (member_ == &Triple::r) {
      const Progression outputs = tied_.from(axis_.pad_lo - at * axis_.filter_dilation);
      return {{outputs.first, at, outputs.partner}, {outputs.step, 0, outputs.partner_step}, outputs.count};
    }
    // The transposed axis's taps are in the opposite order.
    const Progression taps = tied_.from(other_.pad_lo - at * other_.stride);
    const int64_t last = std::max<int64_t>(taps.count - 1, 0);
    return {{taps.partner_at(last), axis_.taps - 1 - taps.at(last), at},
            {-taps.partner_step, taps.step, 0},
            taps.count};
  }

 private:
  const Axis axis_;
  int64_t Triple::* const member_;
  const Axis other_;
  const Tied tied_;
};

}  // namespace

AxisPairs axis_pairs(Op op, const Axis& axis) {
  int64_t Triple::* const result = result_of(op);
  int64_t Triple::* const a = first_of(op);
  int64_t Triple::* const b = second_of(op);
  const TriplesOf of_result(axis, result);
  const auto run_step = of_result[0].step;
  AxisPairs pairs;
  pairs.a_step = run_step.*a;
  pairs.b_step = run_step.*b;
  // If few of many results have a pair, search from the operand with the fewest positions.
  constexpr int64_t kMany = 1024;
  const TriplesOf of_a(axis, a), of_b(axis, b);
  const TriplesOf& fewest = of_a.count() < of_b.count() ? of_a : of_b;
  if (of_result.count() < kMany || most_pairs(axis) > static_cast<double>(of_result.count()) / 8) {
    pairs.results.reserve(static_cast<size_t>(of_result.count()));
    for (int64_t at = 0; at < of_result.count(); ++at) {
      const auto run = of_result[at];
      if (run.count > 0) pairs.results.push_back({at, run.first.*a, run.first.*b, run.count});
    }
    return pairs;
  }
  std::vector<Triple> triples;
  for (int64_t at = 0; at < fewest.count(); ++at) {
    const auto run = fewest[at];
    for (int64_t j = 0; j < run.count; ++j) {
      triples.push_back(
          {run.first.o + run.step.o * j, run.first.r + run.step.r * j, run.first.i + run.step.i * j});
    }
  }
  // Orders the triples of a result as its run does: by tap, or by output, ascending.
  int64_t Triple::* const order = b;
  std::sort(triples.begin(), triples.end(), [=](const Triple& one, const Triple& other) {
    return one.*result != other.*result ? one.*result < other.*result : one.*order < other.*order;
  });
  for (const Triple& triple : triples) {
    if (pairs.results.empty() || pairs.results.back().result != triple.*result)
      pairs.results.push_back({triple.*result, triple.*a, triple.*b, 0});
    ++pairs.results.back().count;
  }
  return pairs;
}

double most_pairs(const Axis& axis) {
  // A fixed share of all pairs o, r solves the relation modulo the input dilation; likewise for the other two
  // pairs.
  const int64_t common = greatest_common_divisor(greatest_common_divisor(axis.stride, axis.filter_dilation),
                                                 axis.input_dilation);
  if (axis.pad_lo % common != 0) return 0;
  const auto part = [&](int64_t one, int64_t other, int64_t modulus) {
    const double both = static_cast<double>(one) * static_cast<double>(other);
    // Rounded up: at least one of each may be tied.
    return std::min(both * static_cast<double>(common) / static_cast<double>(modulus) +
                        static_cast<double>(std::min(one, other)),
                    both);
  };
  return std::min({part(axis.output, axis.taps, axis.input_dilation),
                   part(axis.input, axis.taps, axis.stride),
                   part(axis.input, axis.output, axis.filter_dilation)});
}

}  // namespace convgrad::cpu
