#include "cuda_emulator/vector_access.h"

#include "address.h"
#include "block.h"

namespace cuda_emulator {

void before_global_load(const void* address, size_t bytes) {
  check_global_address("load_global", address, bytes);
  Block::current()->count_access(Access::kGlobalLoad, address, bytes);
}

void before_global_store(const void* address, size_t bytes) {
  check_global_address("store_global", address, bytes);
  Block::current()->count_access(Access::kGlobalStore, address, bytes);
}

void before_shared_load(const void* address, size_t bytes) {
  check_shared_address("load_shared", address, bytes);
  Block::current()->count_access(Access::kSharedLoad, address, bytes);
}

void before_shared_store(const void* address, size_t bytes) {
  check_shared_address("store_shared", address, bytes);
  Block::current()->count_access(Access::kSharedStore, address, bytes);
}

}  // namespace cuda_emulator
