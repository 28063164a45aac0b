#include "fiber.h"

#include <sys/mman.h>
#include <unistd.h>

#include <cstdlib>
#include <new>

#if defined(__SANITIZE_ADDRESS__)
#define CUDA_EMULATOR_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define CUDA_EMULATOR_ASAN 1
#endif
#endif
#ifndef CUDA_EMULATOR_ASAN
#define CUDA_EMULATOR_ASAN 0
#endif

#if CUDA_EMULATOR_ASAN
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

namespace cuda_emulator {
namespace {

// Under AddressSanitizer a kernel's frames are several times larger.
constexpr size_t kStackBytes = CUDA_EMULATOR_ASAN ? 256 << 10 : 64 << 10;

thread_local Fiber* starting = nullptr;  // entry() takes no argument

void before_switch([[maybe_unused]] void** fake_stack, [[maybe_unused]] const void* stack,
                   [[maybe_unused]] size_t bytes) {
#if CUDA_EMULATOR_ASAN
  __sanitizer_start_switch_fiber(fake_stack, stack, bytes);
#endif
}

void after_switch([[maybe_unused]] void* fake_stack, [[maybe_unused]] const void** old_stack,
                  [[maybe_unused]] size_t* old_bytes) {
#if CUDA_EMULATOR_ASAN
  __sanitizer_finish_switch_fiber(fake_stack, old_stack, old_bytes);
#endif
}

}  // namespace

Fiber::Fiber(size_t color) {
  const size_t page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
  void* mapping =
      mmap(nullptr, page + kStackBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (mapping == MAP_FAILED) throw std::bad_alloc();
  mprotect(mapping, page, PROT_NONE);  // stops a stack that overflows
  mapping_ = static_cast<char*>(mapping);
  stack_ = mapping_ + page;
  constexpr size_t kColorBytes = 5 * 64, kColoredBytes = 4096;  // 5 is odd, so all 64 cache lines are used
  stack_bytes_ = kStackBytes - color * kColorBytes % kColoredBytes;
}

Fiber::~Fiber() { munmap(mapping_, static_cast<size_t>(stack_ - mapping_) + kStackBytes); }

void Fiber::reset(void (*body)(void*), void* argument) {
#if CUDA_EMULATOR_ASAN
  // Abandoned frames have left their red zones.
  if (!ended_) __asan_unpoison_memory_region(stack_, kStackBytes);
#endif
  body_ = body;
  argument_ = argument;
  ended_ = false;
  inside_fake_stack_ = nullptr;
  prepare(inside_, stack_, stack_bytes_, &Fiber::entry);
}

void Fiber::entry() {
  Fiber* self = starting;
  after_switch(nullptr, &self->outside_stack_, &self->outside_stack_bytes_);
  self->body_(self->argument_);
  self->ended_ = true;
  self->leave(/*for_good=*/true);
  std::abort();  // an ended fiber is reset before it is resumed
}

void Fiber::resume() {
  starting = this;
  before_switch(&outside_fake_stack_, stack_, stack_bytes_);
  switch_context(outside_, inside_);
  after_switch(outside_fake_stack_, nullptr, nullptr);
}

void Fiber::suspend() { leave(/*for_good=*/false); }

void Fiber::leave(bool for_good) {
  before_switch(for_good ? nullptr : &inside_fake_stack_, outside_stack_, outside_stack_bytes_);
  switch_context(inside_, outside_);
  after_switch(inside_fake_stack_, &outside_stack_, &outside_stack_bytes_);
}

Fiber* FiberPool::take() {
  if (idle_.empty()) {
    all_.push_back(std::make_unique<Fiber>(all_.size()));
    return all_.back().get();
  }
  Fiber* fiber = idle_.back();
  idle_.pop_back();
  return fiber;
}

FiberPool& FiberPool::of_this_os_thread() {
  thread_local FiberPool pool;
  return pool;
}

}  // namespace cuda_emulator
