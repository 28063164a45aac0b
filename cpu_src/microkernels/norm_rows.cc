#include "cpu_src/microkernels/norm_rows.h"

#include "cpu_src/microkernels/lane_access.h"
#include "cpu_src/microkernels/simd.h"

namespace convgrad::cpu::CONVGRAD_ISA {
namespace {

// Rows that share the loads of their columns' vectors.
constexpr int kRowsAtOnce = 4;

template <typename T>
void add_moments_of_rows(const T* x, int64_t count, int64_t width, const Sum<T>* shift, Sum<T>* sum,
                         Sum<T>* square) {
  using S = Sum<T>;
  for (int64_t at = 0; at < width; at += kLanes<S>) {
    const Vec<S> from = load(shift + at);
    Vec<S> added = load(sum + at), squared = load(square + at);
    const T* src = x + at;
    if (count == kNormRows) {
      Vec<S> other{}, other_squared{};
      CONVGRAD_UNROLL
      for (int row = 0; row < kNormRows; row += 2) {
        const Vec<S> a = load(src + row * width) - from, b = load(src + (row + 1) * width) - from;
        added += a;
        squared += a * a;
        other += b;
        other_squared += b * b;
      }
      added += other;
      squared += other_squared;
    } else {
      for (int64_t row = 0; row < count; ++row) {
        const Vec<S> a = load(src + row * width) - from;
        added += a;
        squared += a * a;
      }
    }
    store(sum + at, added);
    store(square + at, squared);
  }
}

// The vectors of the columns of one vector's lanes.
template <typename S>
struct Column {
  Vec<S> mean, mul, bias;
};

template <Activation kActivation, typename S>
CONVGRAD_INLINE Vec<S> activated_vector(Vec<S> z) {
  if constexpr (kActivation != Activation::kNone) z = select<S>(z <= S{0}, Vec<S>{}, z);
  if constexpr (kActivation == Activation::kRelu6) z = select<S>(z >= S{6}, Vec<S>{} + S{6}, z);
  return z;
}

// Returns g = dy * activation'(z).
template <Activation kActivation, typename S>
CONVGRAD_INLINE Vec<S> through_activation(Vec<S> dy, Vec<S> centered, const Column<S>& column) {
  if constexpr (kActivation == Activation::kNone) return dy;
  const Vec<S> z = centered * column.mul + column.bias;
  if constexpr (kActivation == Activation::kRelu) return keep<S>(z > S{0}, dy);
  return keep<S>((z > S{0}) & (z < S{6}), dy);
}

template <typename T, Activation kActivation>
void add_gradients_of_rows(const T* x, const T* dy, int64_t count, int64_t width,
                           const NormColumns<Sum<T>>& columns, Sum<T>* sum, Sum<T>* product) {
  using S = Sum<T>;
  for (int64_t at = 0; at < width; at += kLanes<S>) {
    Column<S> column{load(columns.mean + at), {}, {}};
    if constexpr (kActivation != Activation::kNone) {
      column.mul = load(columns.mul + at);
      column.bias = load(columns.bias + at);
    }
    Vec<S> added = load(sum + at), multiplied = load(product + at);
    const auto add = [&](int64_t row) CONVGRAD_LAMBDA {
      const Vec<S> centered = load(x + at + row * width) - column.mean;
      const Vec<S> g = through_activation<kActivation>(load(dy + at + row * width), centered, column);
      added += g;
      multiplied += g * centered;
    };
    if (count == kNormRows) {
      CONVGRAD_UNROLL
      for (int row = 0; row < kNormRows; ++row) add(row);
    } else {
      for (int64_t row = 0; row < count; ++row) add(row);
    }
    store(sum + at, added);
    store(product + at, multiplied);
  }
}

// Calls step(place, access, at) for every vector of the rows, where `place` counts from the first row and
// `at` from the row's start. vectors(access, at) loads what the rows share.
template <typename T, typename Vectors, typename Step>
CONVGRAD_INLINE void over_rows(int64_t count, int64_t width, const Vectors& vectors, const Step& step) {
  constexpr int64_t lanes = kLanes<Sum<T>>;
  const int64_t whole = width - width % lanes;
  int64_t row = 0;
  for (; row + kRowsAtOnce <= count; row += kRowsAtOnce) {
    for (int64_t at = 0; at < whole; at += lanes) {
      const auto shared = vectors(WholeVector<Sum<T>>{}, at);
      CONVGRAD_UNROLL
      for (int next = 0; next < kRowsAtOnce; ++next)
        step((row + next) * width + at, WholeVector<T>{}, shared);
    }
  }
  for (; row < count; ++row) {
    for (int64_t at = 0; at < whole; at += lanes)
      step(row * width + at, WholeVector<T>{}, vectors(WholeVector<Sum<T>>{}, at));
  }
  if (whole < width) {
    const int64_t rest = width - whole;
    step((count - 1) * width + whole, FirstLanes<T>{rest}, vectors(FirstLanes<Sum<T>>{rest}, whole));
  }
}

template <typename T, Activation kActivation>
void normalize_rows(const T* x, int64_t count, int64_t width, const NormColumns<Sum<T>>& columns, T* y) {
  using S = Sum<T>;
  over_rows<T>(
      count, width,
      [&](const auto access, int64_t at) CONVGRAD_LAMBDA {
        return Column<S>{access.read(columns.mean + at), access.read(columns.mul + at),
                         access.read(columns.bias + at)};
      },
      [&](int64_t place, const auto access, const Column<S>& column) CONVGRAD_LAMBDA {
        const Vec<S> z = (access.read(x + place) - column.mean) * column.mul + column.bias;
        access.write(y + place, activated_vector<kActivation, S>(z));
      });
}

template <typename T, Activation kActivation>
void gradient_of_rows(const T* x, const T* dy, int64_t count, int64_t width,
                      const NormColumns<Sum<T>>& columns, T* dx) {
  using S = Sum<T>;
  struct Slopes {
    Column<S> column;
    Vec<S> slope, offset;
  };
  over_rows<T>(
      count, width,
      [&](const auto access, int64_t at) CONVGRAD_LAMBDA {
        Slopes shared{{access.read(columns.mean + at), access.read(columns.mul + at), {}},
                      access.read(columns.slope + at),
                      access.read(columns.offset + at)};
        if constexpr (kActivation != Activation::kNone) shared.column.bias = access.read(columns.bias + at);
        return shared;
      },
      [&](int64_t place, const auto access, const Slopes& shared) CONVGRAD_LAMBDA {
        const Vec<S> centered = access.read(x + place) - shared.column.mean;
        const Vec<S> g = through_activation<kActivation>(access.read(dy + place), centered, shared.column);
        access.write(dx + place, shared.column.mul * g + (shared.slope * centered + shared.offset));
      });
}

// Sums about a shift that is one of the block's numbers lose at most a factor of the block's length in
// accuracy, however far the mean is from zero. Blocks are merged by the update of Chan, Golub and LeVeque,
// "Algorithms for computing the sample variance: analysis and recommendations" (The American Statistician 37,
// 1983).
template <typename S>
void merge_block_of_rows(int64_t width, double rows, double block, const S* shift, S* sum, S* square,
                         double* mean, double* squares) {
  const double part = 1 / block, share = block / (rows + block), weight = rows * share;
  for (int64_t at = 0; at < width; ++at) {
    const double added = sum[at], block_mean = shift[at] + added * part;
    const double apart = block_mean - mean[at];
    squares[at] += (square[at] - added * added * part) + apart * apart * weight;
    mean[at] += apart * share;
    sum[at] = square[at] = 0;
  }
}

template <typename S>
void move_sums_of_rows(int64_t width, S* sum, S* product, double* total, double* total_product) {
  for (int64_t at = 0; at < width; ++at) {
    total[at] += sum[at];
    total_product[at] += product[at];
    sum[at] = product[at] = 0;
  }
}

template <typename T>
constexpr NormRows<T> kNormRowsOf = {
    add_moments_of_rows<T>,
    {add_gradients_of_rows<T, Activation::kNone>, add_gradients_of_rows<T, Activation::kRelu>,
     add_gradients_of_rows<T, Activation::kRelu6>},
    {normalize_rows<T, Activation::kNone>, normalize_rows<T, Activation::kRelu>,
     normalize_rows<T, Activation::kRelu6>},
    {gradient_of_rows<T, Activation::kNone>, gradient_of_rows<T, Activation::kRelu>,
     gradient_of_rows<T, Activation::kRelu6>},
    merge_block_of_rows<Sum<T>>,
    move_sums_of_rows<Sum<T>>};

}  // namespace

template <>
const NormRows<float>& norm_rows<float>() {
  return kNormRowsOf<float>;
}
template <>
const NormRows<double>& norm_rows<double>() {
  return kNormRowsOf<double>;
}
template <>
const NormRows<BFloat16>& norm_rows<BFloat16>() {
  return kNormRowsOf<BFloat16>;
}
template <>
const NormRows<Float16>& norm_rows<Float16>() {
  return kNormRowsOf<Float16>;
}

}  // namespace convgrad::cpu::CONVGRAD_ISA
