#include "cuda_emulator/async_copy.h"

#include "address.h"
#include "block.h"

namespace cuda_emulator {

void cp_async(void* shared, const void* global, size_t bytes, bool valid) {
  check_shared_address("cp.async", shared, bytes);
  check_global_address("cp.async", global, bytes);
  Block::current()->async_copies().issue(shared, valid ? global : nullptr, bytes);
}

void cp_async_commit() { Block::current()->async_copies().commit(); }
void cp_async_wait(unsigned pending_groups) { Block::current()->async_copies().wait(pending_groups); }

}  // namespace cuda_emulator
