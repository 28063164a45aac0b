#include "address.h"

#include <cstdint>
#include <string>

#include "block.h"

namespace cuda_emulator {
namespace {

std::string misaligned(const char* instruction, const char* space, const void* address, size_t bytes) {
  return Block::current()->where_running() + ", " + instruction + ": an address in " + space +
         " memory that is no multiple of " + std::to_string(bytes) + ", but " +
         std::to_string(reinterpret_cast<uintptr_t>(address) % bytes) + " beyond one";
}

std::string outside(const char* instruction, intptr_t offset, size_t bytes) {
  return Block::current()->where_running() + ", " + instruction + ": " + std::to_string(bytes) +
         " bytes from byte " + std::to_string(offset) + " of the block's " +
         std::to_string(Block::current()->shared_bytes()) + " bytes of shared memory";
}

}  // namespace

void check_global_address(const char* instruction, const void* address, size_t bytes) {
  if (reinterpret_cast<uintptr_t>(address) % bytes != 0)
    fail(misaligned(instruction, "global", address, bytes));
}

void check_shared_address(const char* instruction, const void* address, size_t bytes) {
  check_shared_range(instruction, address, bytes, bytes);
}

void check_shared_range(const char* instruction, const void* address, size_t bytes, size_t alignment) {
  Block& block = *Block::current();
  const uintptr_t at = reinterpret_cast<uintptr_t>(address);
  const uintptr_t begin = reinterpret_cast<uintptr_t>(block.shared_memory());
  if (at < begin || at - begin > block.shared_bytes() || block.shared_bytes() - (at - begin) < bytes)
    fail(outside(instruction, static_cast<intptr_t>(at - begin), bytes));
  if (at % alignment != 0) fail(misaligned(instruction, "shared", address, alignment));
}

size_t shared_offset(const void* address) {
  return static_cast<size_t>(static_cast<const unsigned char*>(address) -
                             static_cast<const unsigned char*>(Block::current()->shared_memory()));
}

}  // namespace cuda_emulator
