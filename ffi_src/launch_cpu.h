// Running a kernel's tasks on XLA's own thread pool, without ever waiting for a thread.
#pragma once

#include <algorithm>
#include <atomic>
#include <memory>
#include <utility>

#include "cpu_src/work.h"
#include "xla/ffi/api/ffi.h"

namespace convgrad::cpu {

// Every worker takes tasks until none is left; whoever completes the last task runs `finish` and makes
// the future available. The calling thread is one of the workers, so the work gets done even if the pool
// is busy, and helpers that come too late find nothing to do. Waiting here for helpers instead would
// deadlock: the pool's threads may all be inside handlers that wait.
class Launch {
 public:
  explicit Launch(Work work) : work_(std::move(work)), open_(work_.tasks), promise_() {}

  void take_tasks() {
    for (int64_t task = next_++; task < work_.tasks; task = next_++) {
      work_.run(task);
      if (--open_ == 0) {
        if (work_.finish) work_.finish();
        promise_.SetAvailable();
      }
    }
  }

  xla::ffi::Future future() { return xla::ffi::Future(promise_); }

 private:
  const Work work_;
  std::atomic<int64_t> next_{0};
  std::atomic<int64_t> open_;
  xla::ffi::Promise promise_;
};

inline xla::ffi::Future launch(xla::ffi::ThreadPool pool, Work work) {
  if (work.tasks == 0) {
    if (work.finish) work.finish();
    xla::ffi::Promise done;
    xla::ffi::Future future(done);
    done.SetAvailable();
    return future;
  }
  const int64_t helpers = std::min(pool.num_threads(), work.tasks) - 1;
  auto shared = std::make_shared<Launch>(std::move(work));
  xla::ffi::Future future = shared->future();
  for (int64_t helper = 0; helper < helpers; ++helper) {
    pool.Schedule([shared] { shared->take_tasks(); });
  }
  shared->take_tasks();
  return future;
}

}  // namespace convgrad::cpu
