// Written by hand for known processors, because swapcontext asks the kernel for the signal mask at every
// switch.
#include "context.h"

#include <cstdint>

#if CUDA_EMULATOR_HANDWRITTEN_SWITCH

// Pushes the registers that the ABI requires a callee to preserve, exchanges stack pointers, and pops them.
// The rounding mode and the other control bits stay: all fibers of an OS thread share them.
extern "C" void cuda_emulator_switch_stack(void** from, void* to);

#if defined(__x86_64__)

asm(R"(
    .text
    .p2align 4
    .globl cuda_emulator_switch_stack
    .hidden cuda_emulator_switch_stack
    .type cuda_emulator_switch_stack, @function
cuda_emulator_switch_stack:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    popq %rcx
    jmp *%rcx    # the processor would predict that ret goes back to the call on the other stack
    .size cuda_emulator_switch_stack, . - cuda_emulator_switch_stack
)");

namespace {
// Six registers and the entry's address are popped. The zero that remains is entry's return address, which
// leaves the stack aligned as after a call and ends a debugger's backtrace.
constexpr size_t kFrameWords = 8, kEntryWord = 6;
}  // namespace

#else  // aarch64

asm(R"(
    .text
    .p2align 4
    .globl cuda_emulator_switch_stack
    .hidden cuda_emulator_switch_stack
    .type cuda_emulator_switch_stack, %function
cuda_emulator_switch_stack:
    sub sp, sp, #160
    stp x19, x20, [sp, #0]
    stp x21, x22, [sp, #16]
    stp x23, x24, [sp, #32]
    stp x25, x26, [sp, #48]
    stp x27, x28, [sp, #64]
    stp x29, x30, [sp, #80]
    stp d8, d9, [sp, #96]
    stp d10, d11, [sp, #112]
    stp d12, d13, [sp, #128]
    stp d14, d15, [sp, #144]
    mov x9, sp
    str x9, [x0]
    mov sp, x1
    ldp x19, x20, [sp, #0]
    ldp x21, x22, [sp, #16]
    ldp x23, x24, [sp, #32]
    ldp x25, x26, [sp, #48]
    ldp x27, x28, [sp, #64]
    ldp x29, x9, [sp, #80]
    ldp d8, d9, [sp, #96]
    ldp d10, d11, [sp, #112]
    ldp d12, d13, [sp, #128]
    ldp d14, d15, [sp, #144]
    mov x30, x9
    add sp, sp, #160
    br x9
    .size cuda_emulator_switch_stack, . - cuda_emulator_switch_stack
)");

namespace {
constexpr size_t kFrameWords = 20, kEntryWord = 11;  // the link register is loaded with the entry's address
}  // namespace

#endif

namespace cuda_emulator {

void prepare(Context& context, char* stack, size_t bytes, void (*entry)()) {
  const uintptr_t top = (reinterpret_cast<uintptr_t>(stack) + bytes) & ~uintptr_t{15};
  uintptr_t* frame = reinterpret_cast<uintptr_t*>(top) - kFrameWords;
  for (size_t word = 0; word < kFrameWords; ++word) frame[word] = 0;
  frame[kEntryWord] = reinterpret_cast<uintptr_t>(entry);
  context.stack_pointer = frame;
}

void switch_context(Context& from, Context& to) {
  cuda_emulator_switch_stack(&from.stack_pointer, to.stack_pointer);
}

}  // namespace cuda_emulator

#else  // ucontext

namespace cuda_emulator {

void prepare(Context& context, char* stack, size_t bytes, void (*entry)()) {
  getcontext(&context.registers);
  context.registers.uc_stack.ss_sp = stack;
  context.registers.uc_stack.ss_size = bytes;
  context.registers.uc_link = nullptr;
  makecontext(&context.registers, entry, 0);
}

void switch_context(Context& from, Context& to) { swapcontext(&from.registers, &to.registers); }

}  // namespace cuda_emulator

#endif
