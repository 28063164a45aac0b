#include "cpu_src/met_taps.h"

#include <algorithm>

#include "cpu_src/regions.h"

namespace convgrad::cpu {

MetTaps met_taps(const ConvProblem& given) {
  MetTaps met{given};
  int64_t inner = given.group_in() * given.out_channels;  // numbers of one tap
  int outermost = 0;
  while (outermost + 1 < kAxes && given.axis[outermost].taps == 1) ++outermost;
  for (int a = outermost + 1; a < kAxes; ++a) inner *= given.axis[a].taps;
  Axis& axis = met.problem.axis[outermost];
  if (axis.taps > 1 && axis.output > 0 && axis.input > 0) {
    const TapBounds bounds = tap_bounds(axis, 0, axis.output);
    const int64_t first = std::min(bounds.first, axis.taps - 1);
    axis.taps = std::max<int64_t>(bounds.last - first, 1);
    axis.pad_lo -= first * axis.filter_dilation;
    met.in_front = first * inner;
  }
  for (Axis& each : met.problem.axis) {
    if (each.taps != 1) continue;
    each.filter_dilation = 1;
    if (each.output == 1) each.stride = 1;
    if (each.input == 1) each.input_dilation = 1;
  }
  return met;
}

}  // namespace convgrad::cpu
