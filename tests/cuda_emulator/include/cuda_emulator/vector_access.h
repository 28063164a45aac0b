// What happens before a load or store of cuda_src/arch/vector_access.cuh. The launch fails if the address is
// no multiple of `bytes`, or if shared memory is meant and the block's does not hold it.
#pragma once

#include <cstddef>

namespace cuda_emulator {

void before_global_load(const void* address, size_t bytes);
void before_global_store(const void* address, size_t bytes);
void before_shared_load(const void* address, size_t bytes);
void before_shared_store(const void* address, size_t bytes);

}  // namespace cuda_emulator
