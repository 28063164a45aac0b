// Checks an instruction's addresses. A failed check makes the launch fail; on a GPU it would be a trap, or
// silent damage.
#pragma once

#include <cstddef>

namespace cuda_emulator {

// Requires a multiple of `bytes`.
void check_global_address(const char* instruction, const void* address, size_t bytes);
// Also requires that all bytes are within the shared memory that the launch asked for.
void check_shared_address(const char* instruction, const void* address, size_t bytes);
// The same for any number of bytes, from a multiple of `alignment`.
void check_shared_range(const char* instruction, const void* address, size_t bytes, size_t alignment);
// Returns the offset in the block's shared memory of an address that has been checked.
size_t shared_offset(const void* address);

}  // namespace cuda_emulator
