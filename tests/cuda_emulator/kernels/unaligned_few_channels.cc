// Tests buffers at any address: the kernels for few channels then copy narrower chunks of x and dy, and give
// the same bits. No test in Python can check this, because XLA aligns every buffer on the "cpu" platform.
#include <cstring>
#include <string>
#include <vector>

#include "check.h"
#include "cuda_src/conv_kernels.h"
#include "cuda_src/few_channels/plan.h"

using namespace selftest;
using namespace convgrad;

namespace {

// `count` numbers that begin `offset` numbers after a multiple of 64 bytes.
class Numbers {
 public:
  Numbers(int64_t count, int64_t size, int64_t offset)
      : bytes_(count * size), memory_(bytes_ + offset * size + 64) {
    const auto begin = reinterpret_cast<uintptr_t>(memory_.data());
    first_ = memory_.data() + (64 - begin % 64) % 64 + offset * size;
    uint32_t state = 1;
    for (int64_t b = 0; b < bytes_; ++b) {
      state = state * 1664525 + 1013904223;
      // Finite numbers of magnitude about one.
      first_[b] =
          static_cast<unsigned char>(b % size == size - 1 ? 0x3e | (state >> 24 & 0x80) : state >> 24);
    }
  }
  Numbers(const Numbers&) = delete;
  Numbers& operator=(const Numbers&) = delete;

  unsigned char* data() { return first_; }
  bool operator==(const Numbers& other) const { return !std::memcmp(first_, other.first_, bytes_); }

 private:
  int64_t bytes_;
  std::vector<unsigned char> memory_;
  unsigned char* first_;
};

struct Results {
  Results(const ConvProblem& p, bool tf32, int64_t offset)
      : size(bytes_of(p.dtype)),
        filter(p.taps() * p.in_channels * p.out_channels),
        outputs(p.batch * p.outputs() * p.out_channels),
        x(p.batch * p.inputs() * p.in_channels, size, offset),
        w(filter, size, offset),
        dy(outputs, size, offset),
        y(outputs, size, offset),
        dw(filter, size, offset),
        partials(cuda::few_channels_filter_split(p).parts * filter, size < 4 ? 4 : size, 0) {
    check(cuda::few_channels_serves(p, false) && cuda::few_channels_serves(p, true), "it serves the problem");
    check(cuda::few_channels_fprop(p, tf32, x.data(), w.data(), {}, y.data(), nullptr) == cudaSuccess,
          "fprop");
    check(cuda::few_channels_wgrad(p, tf32, x.data(), dy.data(), dw.data(), partials.data(), nullptr) ==
              cudaSuccess,
          "wgrad");
  }

  int64_t size, filter, outputs;
  Numbers x, w, dy, y, dw, partials;
};

}  // namespace

TEST(unaligned_few_channels) {
  for (const DType dtype : {DType::kF32, DType::kF64, DType::kBF16, DType::kF16}) {
    for (const bool tf32 : {false, true}) {
      if (tf32 && dtype != DType::kF32) continue;
      for (const int64_t stride : {1, 2}) {
        ConvProblem p;
        p.dtype = dtype;
        p.batch = 2;
        p.in_channels = 3;
        p.out_channels = 16;
        p.axis[1] = Axis{7, 3, 6 / stride + 1, stride, 1, 1, 1};
        p.axis[2] = Axis{16, 3, 15 / stride + 1, stride, 1, 1, 1};
        const Results aligned(p, tf32, 0);
        for (const int64_t offset : {1, 2, 4}) {
          const Results off(p, tf32, offset);
          const std::string where = " of dtype " + std::to_string(static_cast<int>(dtype)) + ", stride " +
                                    std::to_string(stride) + ", off by " + std::to_string(offset);
          check(off.y == aligned.y, "y" + where);
          check(off.dw == aligned.dw, "dw" + where);
        }
      }
    }
  }
}
