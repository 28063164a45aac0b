#include "wgmma_operand.h"

#include <algorithm>
#include <cstring>

#include "access_log.h"
#include "swizzle.h"

namespace cuda_emulator {
namespace {

constexpr unsigned kGroup = 8, kLineNumbers = kLineBytes / sizeof(uint16_t);
constexpr uint64_t kFieldMask = 0x3fff, kSwizzle128 = 1;

}  // namespace

std::string WgmmaOperand::decode(uint64_t descriptor, size_t shared_bytes) {
  const auto field = [&](int bit) { return static_cast<size_t>(descriptor >> bit & kFieldMask) << 4; };
  start = field(0);
  leading = field(16);
  stride = field(32);
  if (descriptor >> 62 != kSwizzle128 || (descriptor >> 49 & 7) != 0)
    return "a descriptor that is none of the 128-byte swizzle with base offset 0";
  if (start % kSwizzleBytes >= kLineBytes)
    return "an operand that begins in no first line of a swizzle's eight";
  if (stride % kSwizzleBytes != 0 || (by_rows && rows > kLineNumbers && leading % kSwizzleBytes != 0))
    return "an operand whose strides are no multiples of 1024";
  if (by_rows ? start % kLineBytes != 0 : start % kLineBytes > kLineBytes - 2 * kChunkBytes)
    return "an operand that runs over the end of a line";
  size_t end = 0;
  for (unsigned row = 0; row < rows; row += kGroup)
    for (unsigned depth = 0; depth < kWgmmaDepth; depth += kGroup)
      end = std::max(end, offset_of(row, depth) / kSwizzleBytes * kSwizzleBytes + kSwizzleBytes);
  if (end > shared_bytes)
    return "an operand that reaches to byte " + std::to_string(end) + " of the block's " +
           std::to_string(shared_bytes) + " bytes of shared memory";
  return {};
}

// K-major: rows are lines, groups of eight of them `stride` apart. MN-major: depths are lines, groups of
// eight of them `stride` apart, and groups of 64 rows `leading`.
size_t WgmmaOperand::offset_of(unsigned row, unsigned depth) const {
  const unsigned line = by_rows ? depth : row, along = by_rows ? row : depth;
  return start + line % kGroup * kLineBytes + line / kGroup * stride + along / kLineNumbers * leading +
         along % kLineNumbers * sizeof(uint16_t);
}

void WgmmaOperand::read(const unsigned char* shared, std::vector<uint16_t>& numbers) const {
  numbers.resize(rows * kWgmmaDepth);
  if (by_rows) {
    uint16_t some[kGroup];
    for (unsigned depth = 0; depth < kWgmmaDepth; ++depth)
      for (unsigned row = 0; row < rows; row += kGroup) {
        std::memcpy(some, shared + swizzled(offset_of(row, depth)), sizeof some);
        for (unsigned i = 0; i < kGroup; ++i) numbers[(row + i) * kWgmmaDepth + depth] = some[i];
      }
    return;
  }
  for (unsigned row = 0; row < rows; ++row)
    for (unsigned depth = 0; depth < kWgmmaDepth; depth += kGroup)
      std::memcpy(&numbers[row * kWgmmaDepth + depth], shared + swizzled(offset_of(row, depth)), kChunkBytes);
}

void WgmmaOperand::count(const unsigned char* shared, SharedTraffic& traffic) const {
  for (unsigned row = 0; row < rows; row += kGroup)
    for (unsigned depth = 0; depth < kWgmmaDepth; depth += kGroup) {
      SharedPhase core;
      for (unsigned line = 0; line < kGroup; ++line)
        core.add(shared + swizzled(by_rows ? offset_of(row, depth + line) : offset_of(row + line, depth)),
                 kChunkBytes);
      core.count(traffic);
      traffic.bytes += kGroup * kChunkBytes;
    }
  ++traffic.instructions;
}

}  // namespace cuda_emulator
