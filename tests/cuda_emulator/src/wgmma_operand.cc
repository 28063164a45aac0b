#include "wgmma_operand.h"

#include <algorithm>
#include <cstring>

#include "access_log.h"
#include "swizzle.h"

namespace cuda_emulator {
namespace {

constexpr unsigned kGroup = 8;  // lines
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
  if (stride % kSwizzleBytes != 0 ||
      (by_rows && rows * number_bytes > kLineBytes && leading % kSwizzleBytes != 0))
    return "an operand whose strides are no multiples of 1024";
  if (by_rows ? start % kLineBytes != 0 : start % kLineBytes > kLineBytes - 2 * kChunkBytes)
    return "an operand that runs over the end of a line";
  size_t end = 0;
  for (unsigned row = 0; row < rows; row += kGroup)
    for (unsigned k = 0; k < depth(); k += kChunkBytes / number_bytes)
      end = std::max(end, offset_of(row, k) / kSwizzleBytes * kSwizzleBytes + kSwizzleBytes);
  if (end > shared_bytes)
    return "an operand that reaches to byte " + std::to_string(end) + " of the block's " +
           std::to_string(shared_bytes) + " bytes of shared memory";
  return {};
}

// K-major: rows are lines, and groups of eight rows are `stride` apart. MN-major: depths are lines, groups of
// eight depths are `stride` apart, and groups of 64 rows `leading`.
size_t WgmmaOperand::offset_of(unsigned row, unsigned depth) const {
  const size_t line = by_rows ? depth : row, along = (by_rows ? row : depth) * number_bytes;
  return start + line % kGroup * kLineBytes + line / kGroup * stride + along / kLineBytes * leading +
         along % kLineBytes;
}

std::vector<uint32_t> WgmmaOperand::read(const unsigned char* shared) const {
  std::vector<uint32_t> numbers(rows * depth());
  const unsigned chunk = kChunkBytes / number_bytes, row_step = by_rows ? chunk : 1,
                 k_step = by_rows ? 1 : chunk;
  for (unsigned row = 0; row < rows; row += row_step)
    for (unsigned k = 0; k < depth(); k += k_step) {
      const unsigned char* from = shared + swizzled(offset_of(row, k));
      for (unsigned i = 0; i < chunk; ++i)
        std::memcpy(&numbers[by_rows ? (row + i) * depth() + k : row * depth() + k + i],
                    from + i * number_bytes, number_bytes);
    }
  return numbers;
}

void WgmmaOperand::count(const unsigned char* shared, SharedTraffic& traffic) const {
  const unsigned chunk = kChunkBytes / number_bytes, k_step = by_rows ? kGroup : chunk;
  for (unsigned row = 0; row < rows; row += kGroup)
    for (unsigned k = 0; k < depth(); k += k_step) {
      SharedPhase core;
      for (unsigned line = 0; line < kGroup; ++line)
        core.add(shared + swizzled(by_rows ? offset_of(row, k + line) : offset_of(row + line, k)),
                 kChunkBytes);
      core.count(traffic);
      traffic.bytes += kGroup * kChunkBytes;
    }
  ++traffic.instructions;
}

}  // namespace cuda_emulator
