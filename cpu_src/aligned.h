// Scratch memory that begins at a cache line, so that no vector crosses two lines.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <new>

namespace convgrad::cpu {

template <typename S>
class AlignedBuffer {
 public:
  explicit AlignedBuffer(int64_t size = 0) { resize(size); }

  // Growing discards the contents.
  void resize(int64_t size) {
    if (size <= size_) return;
    data_.reset();
    data_.reset(static_cast<S*>(::operator new(static_cast<size_t>(size) * sizeof(S), kLine)));
    size_ = size;
  }

  S* data() { return data_.get(); }

 private:
  static constexpr std::align_val_t kLine{64};
  struct Free {
    void operator()(S* data) const { ::operator delete(data, kLine); }
  };

  std::unique_ptr<S, Free> data_;
  int64_t size_ = 0;
};

}  // namespace convgrad::cpu
