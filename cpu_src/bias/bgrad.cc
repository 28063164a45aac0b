// Computes the bias gradient db[k] = sum over n, o of dy[n,o,k] with vectors: several rows are joined into
// one of whole vectors, and a few such rows are added at a time.
//
// A task sums its own rows of dy into a row of partial sums, and the partial sums are added in order, as in
// reference/sums.cc.
#include <algorithm>
#include <numeric>
#include <vector>

#include "common_src/dispatch.h"
#include "common_src/integers.h"
#include "cpu_src/kernels.h"
#include "cpu_src/long_sums.h"
#include "cpu_src/microkernels/row_sums.h"

namespace convgrad::cpu {
namespace {

// Returns a number of rows that together fill whole vectors, several times over if they are short.
int64_t joined_rows(int64_t channels) {
  const int64_t rows = kSummedWidth / std::gcd(kSummedWidth, channels), width = rows * channels;
  return width == 0 ? rows : rows * divide_up(4 * kSummedWidth, width);
}

template <typename T>
void sum_rows(const T* dy, int64_t rows, int64_t K, AddRowSum<T> add, Sum<T>* total) {
  const int64_t joined = joined_rows(K), width = joined * K, whole = rows / joined;
  std::fill_n(total, K, Sum<T>{0});
  if (whole > 0) {
    LongSums<T> sums(width);
    for (int64_t row = 0; row < whole; row += kSummedRows)
      add(dy + row * width, std::min(kSummedRows, whole - row), width, sums.next());
    const Sum<T>* apart = sums.totals();
    for (int64_t row = 0; row < joined; ++row) {
      for (int64_t k = 0; k < K; ++k) total[k] += apart[row * K + k];
    }
  }
  for (int64_t row = whole * joined; row < rows; ++row) {
    for (int64_t k = 0; k < K; ++k) total[k] += widen(dy[row * K + k]);
  }
}

}  // namespace

Work vector_bgrad(const BiasProblem& p, Isa isa, const void* dy_data, void* db_data, void* workspace) {
  return dispatch(p.dtype, [&](auto stored) {
    using T = typename decltype(stored)::type;
    const T* dy = static_cast<const T*>(dy_data);
    T* db = static_cast<T*>(db_data);
    Sum<T>* partial = static_cast<Sum<T>*>(workspace);
    const int64_t tasks = bgrad_tasks(p), rows_per_task = bgrad_rows_per_task(p), K = p.channels;
    const AddRowSum<T> add = CONVGRAD_FOR_ISA(isa, add_row_sum<T>());
    const auto store = [=] {
      for (int64_t task = 1; task < tasks; ++task) {
        for (int64_t k = 0; k < K; ++k) partial[k] += partial[task * K + k];
      }
      for (int64_t k = 0; k < K; ++k) db[k] = narrow<T>(partial[k]);
    };
    const auto sum = [=](int64_t task) {
      const int64_t first = task * rows_per_task;
      sum_rows(dy + first * K, std::min(rows_per_task, p.rows - first), K, add, partial + task * K);
      if (tasks == 1) store();
    };
    if (tasks == 1) return Work{{{1, sum}}};
    return Work{{{tasks, sum}, {1, [=](int64_t) { store(); }}}};
  });
}

}  // namespace convgrad::cpu
