// Runs a kernel's tasks on XLA's thread pool, without waiting for its threads to start.
#pragma once

#include <algorithm>
#include <atomic>
#include <exception>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "cpu_src/work.h"
#include "xla/ffi/api/ffi.h"

namespace convgrad::cpu {

// Every worker takes tasks of the open stage until none remains; whoever completes the last task of the last
// stage makes the future available. The calling thread is one of the workers, so the work gets done even if
// the pool is busy, and helpers that start too late find nothing to do. Waiting here for helpers would
// deadlock: all of the pool's threads may be in handlers that wait.
//
// Between stages a worker that finds no task does wait, but only for tasks that other workers are running,
// and these wait for nobody. The wait is shorter than one task, so the worker spins.
//
// A task may throw (memory may run out). The others still run to their end before the call reports the error,
// because XLA then frees the buffers; later stages are skipped.
class Launch {
 public:
  explicit Launch(Work work) : work_(std::move(work)), progress_(work_.stages.size()) {
    for (size_t stage = 0; stage < progress_.size(); ++stage)
      progress_[stage].open = work_.stages[stage].tasks;
  }

  void take_tasks() {
    for (size_t stage = 0; stage < progress_.size(); ++stage) {
      const Stage& work = work_.stages[stage];
      Progress& progress = progress_[stage];
      for (int64_t task = progress.next++; task < work.tasks; task = progress.next++) {
        if (!failed_) guarded([&] { work.run(task); });
        if (--progress.open == 0 && stage + 1 == progress_.size()) complete();
      }
      if (stage + 1 == progress_.size()) return;
      while (progress.open.load() > 0) std::this_thread::yield();
    }
  }

  // Completes the future. Called directly if there are no tasks.
  void complete() {
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

  struct Progress {
    std::atomic<int64_t> next{0};  // the next task to take
    std::atomic<int64_t> open{0};  // tasks not yet completed
  };

  const Work work_;
  std::vector<Progress> progress_;
  std::atomic<bool> failed_{false};
  std::mutex mutex_;
  std::string message_;
  xla::ffi::Promise promise_;
};

inline xla::ffi::Future launch(xla::ffi::ThreadPool pool, Work work) {
  // The last stage completes the call, so it needs a task to do that; empty results have none.
  while (!work.stages.empty() && work.stages.back().tasks == 0) work.stages.pop_back();
  int64_t tasks = 0;
  for (const Stage& stage : work.stages) tasks = std::max(tasks, stage.tasks);
  auto shared = std::make_shared<Launch>(std::move(work));
  xla::ffi::Future future = shared->future();
  if (tasks == 0) shared->complete();
  try {
    for (int64_t helper = 1; helper < std::min(pool.num_threads(), tasks); ++helper) {
      pool.Schedule([shared] { shared->take_tasks(); });
    }
  } catch (const std::exception&) {
    // This thread does the work of the missing helpers.
  }
  shared->take_tasks();
  return future;
}

}  // namespace convgrad::cpu
