// What an instruction demands of an address. A demand not met makes the launch fail: on a GPU it is a trap,
// or silent damage.
#pragma once

#include <cstddef>

namespace cuda_emulator {

// A multiple of `bytes`.
void check_global_address(const char* instruction, const void* address, size_t bytes);
// Also within the shared memory that the launch asked for, with all of its bytes.
void check_shared_address(const char* instruction, const void* address, size_t bytes);
// The same for any number of bytes, from a multiple of `alignment`.
void check_shared_range(const char* instruction, const void* address, size_t bytes, size_t alignment);
// Of an address that has been checked, in the block's shared memory.
size_t shared_offset(const void* address);

}  // namespace cuda_emulator
