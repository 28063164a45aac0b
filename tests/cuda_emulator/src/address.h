// What an instruction demands of an address. A demand not met makes the launch fail: on a GPU it is a trap,
// or silent damage.
#pragma once

#include <cstddef>

namespace cuda_emulator {

// A multiple of `bytes`.
void check_global_address(const char* instruction, const void* address, size_t bytes);
// Also within the shared memory that the launch asked for, with all of its bytes.
void check_shared_address(const char* instruction, const void* address, size_t bytes);

}  // namespace cuda_emulator
