// A wait of a thread that is not a meeting of threads known in advance.
#pragma once

#include <string>

namespace cuda_emulator {

// Lies on the waiting thread's stack, which may be abandoned without destructors, so no member may own
// memory.
class Condition {
 public:
  // Called whenever it is the thread's turn, outside of all threads.
  virtual bool holds() = 0;
  virtual std::string name() const = 0;  // for error messages

 protected:
  ~Condition() = default;
};

}  // namespace cuda_emulator
