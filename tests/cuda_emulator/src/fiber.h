// A fiber: a stack of its own on which a function runs, pauses and goes on.
#pragma once

#include <cstddef>
#include <memory>
#include <vector>

#include "context.h"

namespace cuda_emulator {

class Fiber {
 public:
  // Stacks all begin at page boundaries; `color` shifts the place where the function's frames begin, so that
  // the frames of a block's fibers do not all compete for the same lines of the cache.
  explicit Fiber(size_t color);
  ~Fiber();
  Fiber(const Fiber&) = delete;
  Fiber& operator=(const Fiber&) = delete;

  // The next resume() calls body(argument) from its beginning, whatever this fiber did before.
  void reset(void (*body)(void*), void* argument);
  // Called outside fibers: runs this one until it suspends or ends.
  void resume();
  // Called inside this fiber: goes back to resume()'s caller.
  void suspend();

 private:
  static void entry();
  void leave(bool for_good);

  char* mapping_;
  char* stack_;
  size_t stack_bytes_;
  Context inside_, outside_;
  void (*body_)(void*) = nullptr;
  void* argument_ = nullptr;
  bool ended_ = true;

  // For AddressSanitizer: the stacks on both sides of a switch.
  void* inside_fake_stack_ = nullptr;
  void* outside_fake_stack_ = nullptr;
  const void* outside_stack_ = nullptr;
  size_t outside_stack_bytes_ = 0;
};

// Fibers whose function has ended wait here for the next one; the last given back, still in the cache, is
// the first taken.
class FiberPool {
 public:
  Fiber* take();
  void give_back(Fiber* fiber) { idle_.push_back(fiber); }

  static FiberPool& of_this_os_thread();

 private:
  std::vector<std::unique_ptr<Fiber>> all_;
  std::vector<Fiber*> idle_;
};

}  // namespace cuda_emulator
