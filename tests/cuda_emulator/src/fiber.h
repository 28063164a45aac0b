// A fiber: a function with a stack of its own that can pause and continue.
#pragma once

#include <cstddef>
#include <memory>
#include <vector>

#include "context.h"

namespace cuda_emulator {

class Fiber {
 public:
  // All stacks begin at page boundaries; `color` shifts the start of the function's frames, so that the
  // frames of a block's fibers do not all compete for the same cache lines.
  explicit Fiber(size_t color);
  ~Fiber();
  Fiber(const Fiber&) = delete;
  Fiber& operator=(const Fiber&) = delete;

  // Makes the next resume() call body(argument) from its beginning, whatever this fiber did before.
  void reset(void (*body)(void*), void* argument);
  // Called outside fibers: runs this one until it suspends or ends.
  void resume();
  // Called inside this fiber: returns to resume()'s caller.
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

  // The stacks on both sides of a switch, for AddressSanitizer.
  void* inside_fake_stack_ = nullptr;
  void* outside_fake_stack_ = nullptr;
  const void* outside_stack_ = nullptr;
  size_t outside_stack_bytes_ = 0;
};

// Keeps fibers whose function has ended for reuse. The last one returned, which is still in the cache, is
// taken first.
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
