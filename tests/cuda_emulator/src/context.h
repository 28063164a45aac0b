// Switches the processor from one stack to another.
#pragma once

#include <cstddef>

#if defined(__ELF__) && (defined(__x86_64__) || defined(__aarch64__)) && !defined(CUDA_EMULATOR_UCONTEXT)
#define CUDA_EMULATOR_HANDWRITTEN_SWITCH 1
#else
#define CUDA_EMULATOR_HANDWRITTEN_SWITCH 0
#include <ucontext.h>
#endif

namespace cuda_emulator {

#if CUDA_EMULATOR_HANDWRITTEN_SWITCH
// The registers that a call must preserve are stored on the stack itself.
struct Context {
  void* stack_pointer = nullptr;
};
#else
struct Context {
  ucontext_t registers;
};
#endif

// Prepares a stack so that the next switch to `context` calls entry() on it. entry() must not return.
void prepare(Context& context, char* stack, size_t bytes, void (*entry)());

// Saves the running registers in `from` and continues where `to` was saved or prepared.
void switch_context(Context& from, Context& to);

}  // namespace cuda_emulator
