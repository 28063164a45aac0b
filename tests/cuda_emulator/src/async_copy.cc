#include "cuda_emulator/async_copy.h"

#include "address.h"
#include "block.h"

namespace cuda_emulator {

void cp_async(void* shared, const void* global, size_t bytes, bool valid) {
  check_shared_address("cp.async", shared, bytes);
  check_global_address("cp.async", global, bytes);
  const void* from = valid ? global : nullptr;
  Block& block = *Block::current();
  block.async_copies().issue(shared, from, bytes);
  block.count_access(Access::kCpAsyncRead, from, bytes);
  block.count_access(Access::kCpAsyncWrite, shared, bytes);
}

void cp_async_commit() { Block::current()->async_copies().commit(); }
void cp_async_wait(unsigned pending_groups) { Block::current()->async_copies().wait(pending_groups); }

}  // namespace cuda_emulator
