// Batch norm's four passes over x: two that sum over a channel's positions, two that write each position.
//
// Rows of few channels are joined into rows of whole vectors. A column of a joined row has sums of its own;
// a task adds up the columns of each channel at its end, and the last stage adds up the tasks, all in order.
#include <algorithm>
#include <numeric>
#include <vector>

#include "common_src/dispatch.h"
#include "common_src/integers.h"
#include "cpu_src/batch_norm/plan.h"
#include "cpu_src/kernels.h"
#include "cpu_src/microkernels/norm_rows.h"

namespace convgrad::cpu {
namespace {

// Returns a number of rows that together fill whole vectors, several times over if they are short.
int64_t joined_norm_rows(int64_t channels) {
  const int64_t rows = kNormWidth / std::gcd(kNormWidth, channels), width = rows * channels;
  return width == 0 ? rows : rows * divide_up(4 * kNormWidth, width);
}

// The rows of one task: `whole` joined rows of `width` numbers, then `rest` numbers.
struct TaskRows {
  TaskRows(const NormProblem& p, int64_t task) {
    const int64_t tasks = norm_tasks(p), per_task = norm_rows_per_task(p);
    const int64_t first = task % tasks * per_task;
    group = task / tasks;
    rows = std::min(per_task, p.rows - first);
    start = (group * p.rows + first) * p.channels;
    joined = joined_norm_rows(p.channels);
    width = joined * p.channels;
    whole = rows / joined;
    rest = rows % joined * p.channels;
  }
  int64_t group, rows, start, joined, width, whole, rest;
};

// A group's vectors, repeated for each of the joined rows. Without joined rows they are used as they are.
template <typename S>
class RepeatedVectors {
 public:
  RepeatedVectors(const NormProblem& p, const TaskRows& rows, const NormVectors& vectors) {
    const int64_t copied = rows.joined == 1 ? 0 : rows.width;
    copies_.resize(5 * copied);
    S* copy = copies_.data();
    const auto of = [&](const void* vector) -> const S* {
      if (vector == nullptr) return nullptr;
      const S* from = static_cast<const S*>(vector) + rows.group * p.channels;
      if (copied == 0) return from;
      for (int64_t row = 0; row < rows.joined; ++row) std::copy_n(from, p.channels, copy + row * p.channels);
      copy += copied;
      return copy - copied;
    };
    columns = {of(vectors.mean), of(vectors.mul), of(vectors.bias), of(vectors.slope), of(vectors.offset)};
  }

  NormColumns<S> columns;

 private:
  std::vector<S> copies_;
};

// The number of values, their mean, and the sum of their squared deviations from it.
struct Moments {
  double count = 0, mean = 0, squares = 0;

  void merge(double other_count, double other_mean, double other_squares) {
    if (other_count == 0) return;
    const double share = other_count / (count + other_count), apart = other_mean - mean;
    squares += other_squares + apart * apart * (count * share);
    mean += apart * share;
    count += other_count;
  }
};

// Computes the moments of a task's rows: mean and squares, for each channel.
template <typename T>
void sum_moments(const NormProblem& p, const NormRows<T>& kernels, const TaskRows& rows, const T* x,
                 double* result) {
  using S = Sum<T>;
  std::vector<S> sum(2 * rows.width), shift(rows.width);
  std::vector<double> mean(2 * rows.width);
  S* square = sum.data() + rows.width;
  double* squares = mean.data() + rows.width;
  for (int64_t row = 0; row < rows.whole; row += kNormBlock) {
    const int64_t block = std::min(kNormBlock, rows.whole - row);
    const T* src = x + row * rows.width;
    for (int64_t at = 0; at < rows.width; ++at) shift[at] = widen(src[at]);
    for (int64_t next = 0; next < block; next += kNormRows)
      kernels.add_moments(src + next * rows.width, std::min(kNormRows, block - next), rows.width,
                          shift.data(), sum.data(), square);
    kernels.merge_block(rows.width, static_cast<double>(row), static_cast<double>(block), shift.data(),
                        sum.data(), square, mean.data(), squares);
  }
  const T* last = x + rows.whole * rows.width;
  for (int64_t k = 0; k < p.channels; ++k) {
    Moments moments;
    for (int64_t at = k; at < rows.width; at += p.channels)
      moments.merge(static_cast<double>(rows.whole), mean[at], squares[at]);
    for (int64_t at = k; at < rows.rest; at += p.channels) moments.merge(1, widen(last[at]), 0);
    result[k] = moments.mean;
    result[p.channels + k] = moments.squares;
  }
}

// Computes the sums of g and of g * (x - mean) over a task's rows, for each channel.
template <typename T>
void sum_gradients(const NormProblem& p, const NormRows<T>& kernels, const TaskRows& rows,
                   const NormColumns<Sum<T>>& columns, const T* x, const T* dy, double* result) {
  using S = Sum<T>;
  const auto add = kernels.add_gradients[static_cast<int>(p.activation)];
  std::vector<S> sum(2 * rows.width);
  std::vector<double> total(2 * rows.width);
  S* product = sum.data() + rows.width;
  double* total_product = total.data() + rows.width;
  for (int64_t row = 0; row < rows.whole; row += kNormRows) {
    add(x + row * rows.width, dy + row * rows.width, std::min(kNormRows, rows.whole - row), rows.width,
        columns, sum.data(), product);
    if ((row + kNormRows) % kNormBlock == 0 || row + kNormRows >= rows.whole)
      kernels.move_sums(rows.width, sum.data(), product, total.data(), total_product);
  }
  const int64_t last = rows.whole * rows.width;
  for (int64_t k = 0; k < p.channels; ++k) {
    double g_sum = 0, g_product = 0;
    for (int64_t at = k; at < rows.width; at += p.channels) {
      g_sum += total[at];
      g_product += total_product[at];
    }
    for (int64_t at = k; at < rows.rest; at += p.channels) {
      const S centered = widen(x[last + at]) - columns.mean[k];
      S z = 0;
      if (p.activation != Activation::kNone) z = centered * columns.mul[k] + columns.bias[k];
      const double g = passes(p.activation, z) ? widen(dy[last + at]) : S{0};
      g_sum += g;
      g_product += g * centered;
    }
    result[k] = g_sum;
    result[p.channels + k] = g_product;
  }
}

// Returns the work of a pass that sums: tasks that write 2 * channels doubles, then one per group that
// combines them.
template <typename Add, typename Combine>
Work summing(const NormProblem& p, double* partial, const Add& add, const Combine& combine) {
  const int64_t tasks = norm_tasks(p), numbers = 2 * p.channels;
  const auto combined = [=](int64_t group) { combine(group, partial + group * tasks * numbers); };
  const auto summed = [=](int64_t task) {
    add(TaskRows(p, task), partial + task * numbers);
    if (tasks == 1) combined(task);
  };
  if (tasks == 1) return Work{{{p.groups, summed}}};
  return Work{{{p.groups * tasks, summed}, {p.groups, combined}}};
}

// Returns the work of a pass that writes every position: write(kernels, rows, columns).
template <typename T, typename Write>
Work writing(const NormProblem& p, Isa isa, const NormVectors& vectors, const Write& write) {
  if (p.numbers() == 0) return {};
  const NormRows<T>& kernels = CONVGRAD_FOR_ISA(isa, norm_rows<T>());
  return Work{{{p.groups * norm_tasks(p), [=, &kernels](int64_t task) {
                  const TaskRows rows(p, task);
                  const RepeatedVectors<Sum<T>> repeated(p, rows, vectors);
                  const int64_t last = rows.whole * rows.width;
                  write(kernels, rows.start, rows.whole, rows.width, repeated.columns);
                  if (rows.rest > 0) write(kernels, rows.start + last, 1, rows.rest, repeated.columns);
                }}}};
}

}  // namespace

Work vector_norm_moments(const NormProblem& p, Isa isa, const void* x_data, void* mean_data, void* var_data,
                         void* workspace) {
  return dispatch(p.dtype, [&](auto stored) {
    using T = typename decltype(stored)::type;
    const T* x = static_cast<const T*>(x_data);
    Sum<T>*mean = static_cast<Sum<T>*>(mean_data), *var = static_cast<Sum<T>*>(var_data);
    const NormRows<T>& kernels = CONVGRAD_FOR_ISA(isa, norm_rows<T>());
    return summing(
        p, static_cast<double*>(workspace),
        [=, &kernels](const TaskRows& rows, double* partial) {
          sum_moments(p, kernels, rows, x + rows.start, partial);
        },
        [=](int64_t group, const double* partial) {
          const int64_t tasks = norm_tasks(p), per_task = norm_rows_per_task(p), K = p.channels;
          for (int64_t k = 0; k < K; ++k) {
            Moments moments;
            for (int64_t task = 0; task < tasks; ++task) {
              const double count = static_cast<double>(std::min(per_task, p.rows - task * per_task));
              moments.merge(count, partial[2 * task * K + k], partial[(2 * task + 1) * K + k]);
            }
            // Without a row, both are the quotient of zeros, NaN.
            const double rows = static_cast<double>(p.rows);
            mean[group * K + k] = static_cast<Sum<T>>(moments.mean * rows / rows);
            var[group * K + k] = static_cast<Sum<T>>(moments.squares / rows);
          }
        });
  });
}

Work vector_norm_sums(const NormProblem& p, Isa isa, const void* x_data, const void* dy_data,
                      const NormVectors& vectors, void* sum_data, void* product_data, void* workspace) {
  return dispatch(p.dtype, [&](auto stored) {
    using T = typename decltype(stored)::type;
    const T *x = static_cast<const T*>(x_data), *dy = static_cast<const T*>(dy_data);
    Sum<T>*sum = static_cast<Sum<T>*>(sum_data), *product = static_cast<Sum<T>*>(product_data);
    const NormRows<T>& kernels = CONVGRAD_FOR_ISA(isa, norm_rows<T>());
    return summing(
        p, static_cast<double*>(workspace),
        [=, &kernels](const TaskRows& rows, double* partial) {
          const RepeatedVectors<Sum<T>> repeated(p, rows, vectors);
          sum_gradients(p, kernels, rows, repeated.columns, x + rows.start, dy + rows.start, partial);
        },
        [=](int64_t group, const double* partial) {
          const int64_t tasks = norm_tasks(p), K = p.channels;
          for (int64_t k = 0; k < K; ++k) {
            double g = 0, g_centered = 0;
            for (int64_t task = 0; task < tasks; ++task) {
              g += partial[2 * task * K + k];
              g_centered += partial[(2 * task + 1) * K + k];
            }
            sum[group * K + k] = static_cast<Sum<T>>(g);
            product[group * K + k] = static_cast<Sum<T>>(g_centered);
          }
        });
  });
}

Work vector_normalize(const NormProblem& p, Isa isa, const void* x_data, const NormVectors& vectors,
                      void* y_data) {
  return dispatch(p.dtype, [&](auto stored) {
    using T = typename decltype(stored)::type;
    const T* x = static_cast<const T*>(x_data);
    T* y = static_cast<T*>(y_data);
    return writing<T>(p, isa, vectors,
                      [=](const NormRows<T>& kernels, int64_t start, int64_t count, int64_t width,
                          const NormColumns<Sum<T>>& columns) {
                        kernels.normalize[static_cast<int>(p.activation)](x + start, count, width, columns,
                                                                          y + start);
                      });
  });
}

Work vector_norm_gradient(const NormProblem& p, Isa isa, const void* x_data, const void* dy_data,
                          const NormVectors& vectors, void* dx_data) {
  return dispatch(p.dtype, [&](auto stored) {
    using T = typename decltype(stored)::type;
    const T *x = static_cast<const T*>(x_data), *dy = static_cast<const T*>(dy_data);
    T* dx = static_cast<T*>(dx_data);
    return writing<T>(p, isa, vectors,
                      [=](const NormRows<T>& kernels, int64_t start, int64_t count, int64_t width,
                          const NormColumns<Sum<T>>& columns) {
                        kernels.gradient[static_cast<int>(p.activation)](x + start, dy + start, count, width,
                                                                         columns, dx + start);
                      });
  });
}

Work norm_moments(const NormProblem& p, Request request, const void* x, void* mean, void* var,
                  void* workspace) {
  if (request.kernel == Kernel::kReference) return reference_norm_moments(p, x, mean, var);
  return vector_norm_moments(p, request.isa, x, mean, var, workspace);
}

Work norm_sums(const NormProblem& p, Request request, const void* x, const void* dy,
               const NormVectors& vectors, void* sum, void* product, void* workspace) {
  if (request.kernel == Kernel::kReference) return reference_norm_sums(p, x, dy, vectors, sum, product);
  return vector_norm_sums(p, request.isa, x, dy, vectors, sum, product, workspace);
}

Work normalize(const NormProblem& p, Request request, const void* x, const NormVectors& vectors, void* y) {
  if (request.kernel == Kernel::kReference) return reference_normalize(p, x, vectors, y);
  return vector_normalize(p, request.isa, x, vectors, y);
}

Work norm_gradient(const NormProblem& p, Request request, const void* x, const void* dy,
                   const NormVectors& vectors, void* dx) {
  if (request.kernel == Kernel::kReference) return reference_norm_gradient(p, x, dy, vectors, dx);
  return vector_norm_gradient(p, request.isa, x, dy, vectors, dx);
}

}  // namespace convgrad::cpu
