#include "cpu_src/microkernels/rows.h"

#include <type_traits>

#include "cpu_src/microkernels/simd.h"

namespace convgrad::cpu::CONVGRAD_ISA {
namespace {

template <typename T>
void widen_rows(const T* src, int64_t from_step, Sum<T>* dst, int64_t to_step, int64_t rows, int64_t length) {
  constexpr int lanes = kLanes<Sum<T>>;
  for (int64_t row = 0; row < rows; ++row, src += from_step, dst += to_step) {
    int64_t at = 0;
    for (; at + lanes <= length; at += lanes) store(dst + at, load(src + at));
    if constexpr (std::is_same_v<T, Sum<T>>) {
      if (at < length) store_first(dst + at, load_first(src + at, length - at), length - at);
    } else {
      for (; at < length; ++at) dst[at] = widen(src[at]);
    }
  }
}

template <typename T>
void narrow_rows(const Sum<T>* src, int64_t from_step, T* dst, int64_t to_step, int64_t rows,
                 int64_t length) {
  constexpr int lanes = kLanes<Sum<T>>;
  for (int64_t row = 0; row < rows; ++row, src += from_step, dst += to_step) {
    int64_t at = 0;
    for (; at + lanes <= length; at += lanes) store(dst + at, load(src + at));
    if constexpr (std::is_same_v<T, Sum<T>>) {
      if (at < length) store_first(dst + at, load_first(src + at, length - at), length - at);
    } else {
      for (; at < length; ++at) dst[at] = narrow<T>(src[at]);
    }
  }
}

template <typename S>
void accumulate_rows(const S* src, int64_t from_step, S* dst, int64_t to_step, int64_t rows, int64_t length) {
  constexpr int lanes = kLanes<S>;
  for (int64_t row = 0; row < rows; ++row, src += from_step, dst += to_step) {
    int64_t at = 0;
    for (; at + lanes <= length; at += lanes) store(dst + at, load(dst + at) + load(src + at));
    for (; at < length; ++at) dst[at] += src[at];
  }
}

template <typename T>
void finish_rows(const Epilogue& epilogue, int64_t first, Sum<T>* sums, int64_t step, int64_t rows,
                 int64_t length) {
  using S = Sum<T>;
  constexpr int lanes = kLanes<S>;
  const T* bias = static_cast<const T*>(epilogue.bias);
  int64_t at = 0;
  for (; at + lanes <= length; at += lanes) {
    Vec<S> b{};
    if (bias != nullptr) b = load(bias + first + at);
    S* sum = sums + at;
    for (int64_t row = 0; row < rows; ++row, sum += step) {
      Vec<S> v = load(sum);
      if (bias != nullptr) v += b;
      if (epilogue.relu) v = v <= Vec<S>{} ? Vec<S>{} : v;  // rectified()
      store(sum, v);
    }
  }
  for (; at < length; ++at) {
    const S b = epilogue.bias_of<T>(first + at);
    for (int64_t row = 0; row < rows; ++row) {
      S& sum = sums[row * step + at];
      sum = epilogue.finish(sum, b);
    }
  }
}

template <typename T>
constexpr RowConversions<T> kConversions = {widen_rows<T>, narrow_rows<T>, accumulate_rows<Sum<T>>,
                                            finish_rows<T>};

}  // namespace

#if !defined(CONVGRAD_BF16_DOTS)
template <>
const RowConversions<float>& row_conversions<float>() {
  return kConversions<float>;
}
template <>
const RowConversions<double>& row_conversions<double>() {
  return kConversions<double>;
}
template <>
const RowConversions<Float16>& row_conversions<Float16>() {
  return kConversions<Float16>;
}
#endif
template <>
const RowConversions<BFloat16>& row_conversions<BFloat16>() {
  return kConversions<BFloat16>;
}

}  // namespace convgrad::cpu::CONVGRAD_ISA
