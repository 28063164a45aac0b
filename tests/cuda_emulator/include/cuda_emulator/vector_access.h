// Called before a load or store of cuda_src/arch/vector_access.cuh. The launch fails if the address is not a
// multiple of `bytes`, or if a shared access lies outside the block's shared memory.
#pragma once

#include <cstddef>

namespace cuda_emulator {

void before_global_load(const void* address, size_t bytes);
void before_global_store(const void* address, size_t bytes);
void before_shared_load(const void* address, size_t bytes);
void before_shared_store(const void* address, size_t bytes);

}  // namespace cuda_emulator
