// One thread's cp.async copies in flight, in groups.
#pragma once

#include <array>
#include <cstddef>
#include <cstring>
#include <vector>

namespace cuda_emulator {

inline constexpr size_t kMaxAsyncCopyBytes = 16;

class AsyncCopies {
 public:
  // Copies zeros if `from` is null.
  void issue(void* to, const void* from, size_t bytes) {
    Copy copy{to, bytes, {}};
    if (from) std::memcpy(copy.data.data(), from, bytes);
    std::memset(to, 0xff, bytes);
    copies_.push_back(copy);
  }
  void commit() { group_ends_.push_back(copies_.size()); }
  // Delivers all groups except the latest `pending`.
  void wait(size_t pending) {
    if (group_ends_.size() <= pending) return;
    const size_t groups = group_ends_.size() - pending, count = group_ends_[groups - 1];
    for (size_t i = 0; i < count; ++i) std::memcpy(copies_[i].to, copies_[i].data.data(), copies_[i].bytes);
    copies_.erase(copies_.begin(), copies_.begin() + static_cast<ptrdiff_t>(count));
    group_ends_.erase(group_ends_.begin(), group_ends_.begin() + static_cast<ptrdiff_t>(groups));
    for (size_t& end : group_ends_) end -= count;
  }

  size_t count() const { return copies_.size(); }
  void forget() {
    copies_.clear();
    group_ends_.clear();
  }

 private:
  struct Copy {
    void* to;
    size_t bytes;
    std::array<unsigned char, kMaxAsyncCopyBytes> data;
  };
  // Reused without allocation after the first few copies.
  std::vector<Copy> copies_;
  std::vector<size_t> group_ends_;  // indices into copies_
};

}  // namespace cuda_emulator
