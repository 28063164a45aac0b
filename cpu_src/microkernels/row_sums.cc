#include "cpu_src/microkernels/row_sums.h"

#include "cpu_src/microkernels/simd.h"

namespace convgrad::cpu::CONVGRAD_ISA {
namespace {

template <typename T>
void add_sum(const T* rows, int64_t count, int64_t width, Sum<T>* sum) {
  using S = Sum<T>;
  constexpr int lanes = kLanes<S>;
  static_assert(kSummedWidth % lanes == 0 && kSummedRows == 8);
  if (count == kSummedRows) {
    for (int64_t at = 0; at < width; at += lanes) {
      const T* src = rows + at;
      const Vec<S> a = load(src) + load(src + width), b = load(src + 2 * width) + load(src + 3 * width);
      const Vec<S> c = load(src + 4 * width) + load(src + 5 * width);
      const Vec<S> d = load(src + 6 * width) + load(src + 7 * width);
      store(sum + at, load(sum + at) + ((a + b) + (c + d)));
    }
    return;
  }
  for (int64_t at = 0; at < width; at += lanes) {
    Vec<S> added{};
    for (int64_t row = 0; row < count; ++row) added += load(rows + row * width + at);
    store(sum + at, load(sum + at) + added);
  }
}

}  // namespace

template <>
AddRowSum<float> add_row_sum<float>() {
  return add_sum<float>;
}
template <>
AddRowSum<double> add_row_sum<double>() {
  return add_sum<double>;
}
template <>
AddRowSum<BFloat16> add_row_sum<BFloat16>() {
  return add_sum<BFloat16>;
}
template <>
AddRowSum<Float16> add_row_sum<Float16>() {
  return add_sum<Float16>;
}

}  // namespace convgrad::cpu::CONVGRAD_ISA
