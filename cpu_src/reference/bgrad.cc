// db[k] = sum over n, o of dy[n,o,k].
//
// A task sums its own rows of dy into a row of partial sums; when all are done the rows of partial sums
// are added in order. Which rows are whose is a function of the problem alone.
#include <algorithm>

#include "common_src/dispatch.h"
#include "cpu_src/kernels.h"
#include "cpu_src/reference/long_sums.h"

namespace convgrad::cpu {

Work reference_bgrad(const BiasProblem& p, const void* dy_data, void* db_data, void* workspace) {
  return dispatch(p.dtype, [&](auto stored) {
    using T = typename decltype(stored)::type;
    const T* dy = static_cast<const T*>(dy_data);
    T* db = static_cast<T*>(db_data);
    Sum<T>* partial = static_cast<Sum<T>*>(workspace);
    const int64_t tasks = bgrad_tasks(p), rows_per_task = bgrad_rows_per_task(p), K = p.channels;
    return Work{{{tasks,
                  [=](int64_t task) {
                    LongSums<T> sums(K);
                    const int64_t last = std::min(p.rows, (task + 1) * rows_per_task);
                    for (int64_t row = task * rows_per_task; row < last; ++row) {
                      Sum<T>* sum = sums.next();
                      for (int64_t k = 0; k < K; ++k) sum[k] += widen(dy[row * K + k]);
                    }
                    std::copy_n(sums.totals(), K, partial + task * K);
                  }},
                 {1, [=](int64_t) {
                    for (int64_t k = 0; k < K; ++k) {
                      Sum<T> sum = 0;
                      for (int64_t task = 0; task < tasks; ++task) sum += partial[task * K + k];
                      db[k] = narrow<T>(sum);
                    }
                  }}}};
  });
}

}  // namespace convgrad::cpu
