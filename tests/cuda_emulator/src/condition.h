// What a thread waits for when it is no meeting of threads that are known beforehand.
#pragma once

#include <string>

namespace cuda_emulator {

// Lies on the waiting thread's stack, which may be given up without destructors: no member may own memory.
class Condition {
 public:
  // Asked whenever the thread's turn comes, outside of all threads.
  virtual bool holds() = 0;
  virtual std::string name() const = 0;  // for error messages

 protected:
  ~Condition() = default;
};

}  // namespace cuda_emulator
