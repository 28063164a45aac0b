// Running a kernel's tasks on XLA's own thread pool, without ever waiting for a thread.
#pragma once

#include <algorithm>
#include <atomic>
#include <exception>
#include <memory>
#include <mutex>
#include <string>
#include <utility>

#include "cpu_src/work.h"
#include "xla/ffi/api/ffi.h"

namespace convgrad::cpu {

// Every worker takes tasks until none is left; whoever completes the last task runs `finish` and makes
// the future available. The calling thread is one of the workers, so the work gets done even if the pool
// is busy, and helpers that come too late find nothing to do. Waiting here for helpers instead would
// deadlock: the pool's threads may all be inside handlers that wait.
//
// A task may throw (memory may run out). The others still run to their end before the error is told, since
// XLA frees the buffers once it knows.
class Launch {
 public:
  explicit Launch(Work work) : work_(std::move(work)), open_(work_.tasks) {}

  void take_tasks() {
    for (int64_t task = next_++; task < work_.tasks; task = next_++) {
      guarded([&] { work_.run(task); });
      if (--open_ == 0) complete();
    }
  }

  // The last step; called by itself where there are no tasks.
  void complete() {
    if (!failed_ && work_.finish) guarded(work_.finish);
    if (failed_) {
      promise_.SetError(xla::ffi::Error::Internal("jax_convgrad: " + message_));
    } else {
      promise_.SetAvailable();
    }
  }

  xla::ffi::Future future() { return xla::ffi::Future(promise_); }

 private:
  template <typename Step>
  void guarded(const Step& step) {
    try {
      step();
    } catch (const std::exception& error) {
      fail(error.what());
    } catch (...) {
      fail("unknown exception");
    }
  }

  void fail(const char* message) {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (!failed_) message_ = message;
    failed_ = true;
  }

  const Work work_;
  std::atomic<int64_t> next_{0};
  std::atomic<int64_t> open_;
  std::atomic<bool> failed_{false};
  std::mutex mutex_;
  std::string message_;
  xla::ffi::Promise promise_;
};

inline xla::ffi::Future launch(xla::ffi::ThreadPool pool, Work work) {
  const int64_t tasks = work.tasks;
  auto shared = std::make_shared<Launch>(std::move(work));
  xla::ffi::Future future = shared->future();
  if (tasks == 0) shared->complete();
  try {
    for (int64_t helper = 1; helper < std::min(pool.num_threads(), tasks); ++helper) {
      pool.Schedule([shared] { shared->take_tasks(); });
    }
  } catch (const std::exception&) {
    // Fewer helpers, then: this thread does what they would have done.
  }
  shared->take_tasks();
  return future;
}

}  // namespace convgrad::cpu
