// Memory for a kernel with guards around it that must not be touched.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "tests/cpu_kernels/numbers.h"

namespace convgrad::test {

// `count` numbers, initially NaN like the guards around them: reading a guard spoils a sum, and writing one
// is detected. AddressSanitizer adds guards of its own directly behind the last number.
template <typename T>
class Guarded {
 public:
  explicit Guarded(int64_t count) : bytes_(count * sizeof(T) + 2 * kGuard, kNanByte), count_(count) {}
  Guarded(int64_t count, uint64_t seed) : Guarded(count) {
    Random random(seed);
    for (int64_t at = 0; at < count; ++at) data()[at] = narrow<T>(static_cast<Sum<T>>(random.next()));
  }

  T* data() { return reinterpret_cast<T*>(bytes_.data() + kGuard); }
  const T* data() const { return reinterpret_cast<const T*>(bytes_.data() + kGuard); }
  int64_t size() const { return count_; }

  bool intact() const {
    const auto untouched = [](unsigned char byte) { return byte == kNanByte; };
    return std::all_of(bytes_.begin(), bytes_.begin() + kGuard, untouched) &&
           std::all_of(bytes_.end() - kGuard, bytes_.end(), untouched);
  }

  std::vector<double> doubles() const {
    std::vector<double> values(count_);
    for (int64_t at = 0; at < count_; ++at) values[at] = static_cast<double>(widen(data()[at]));
    return values;
  }

  friend bool operator==(const Guarded& a, const Guarded& b) { return a.bytes_ == b.bytes_; }

 private:
  static constexpr unsigned char kNanByte = 0xff;
#if defined(__SANITIZE_ADDRESS__)
  static constexpr int64_t kGuard = 0;
#else
  static constexpr int64_t kGuard = 64;
#endif

  std::vector<unsigned char> bytes_;
  int64_t count_;
};

}  // namespace convgrad::test
