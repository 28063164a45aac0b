// Tests buffers at any address, which XLA may pass to a kernel: the vector kernels then use narrower accesses
// and give the same bits. No test in Python can check this, because XLA aligns every buffer on the "cpu"
// platform. The sanitized build reports an access that is too wide.
#include <cstring>
#include <string>
#include <vector>

#include "check.h"
#include "cuda_src/kernels.h"

using namespace selftest;
using namespace convgrad;

namespace {

// `bytes` of memory that begin `offset` numbers after a multiple of 64.
class Buffer {
 public:
  Buffer(int64_t bytes, int64_t offset_bytes) : bytes_(bytes), memory_(bytes + offset_bytes + 64) {
    const auto begin = reinterpret_cast<uintptr_t>(memory_.data());
    first_ = memory_.data() + (64 - begin % 64) % 64 + offset_bytes;
  }
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;

  unsigned char* data() { return first_; }
  int32_t* positions() { return reinterpret_cast<int32_t*>(first_); }
  bool operator==(const Buffer& other) const { return !std::memcmp(first_, other.first_, bytes_); }

 private:
  int64_t bytes_;
  std::vector<unsigned char> memory_;
  unsigned char* first_;
};

// Fills with finite numbers of every dtype: no exponent has all bits set.
void fill(Buffer& buffer, int64_t bytes, DType dtype) {
  uint32_t state = 1;
  for (int64_t b = 0; b < bytes; ++b) {
    state = state * 1664525 + 1013904223;
    const bool highest = b % bytes_of(dtype) == bytes_of(dtype) - 1;
    buffer.data()[b] = static_cast<unsigned char>(highest ? 0x38 | (state >> 24 & 0x83) : state >> 24);
  }
}

const DType kDTypes[] = {DType::kF32, DType::kF64, DType::kBF16, DType::kF16};

void succeeds(cudaError_t error, const std::string& what) {
  check(error == cudaSuccess, what + ": " + cudaGetErrorString(error));
}

// The results of every pooling op over buffers that are `offset` numbers off.
struct Pooled {
  Pooled(const PoolProblem& p, int64_t offset)
      : size(bytes_of(p.dtype)),
        inputs(p.batch * p.inputs() * p.channels),
        outputs(p.batch * p.outputs() * p.channels),
        x(inputs * size, offset * size),
        dy(outputs * size, offset * size),
        y(outputs * size, offset * size),
        position(outputs * 4, offset * 4),
        dx(inputs * size, offset * size),
        selected(outputs * size, offset * size),
        mean(outputs * size, offset * size),
        mean_dx(inputs * size, offset * size) {
    fill(x, inputs * size, p.dtype);
    fill(dy, outputs * size, p.dtype);
    const auto kernel = cuda::PoolKernel::kVector;
    succeeds(cuda::max_pool(p, kernel, x.data(), y.data(), position.positions(), nullptr), "max_pool");
    succeeds(cuda::max_pool_grad(p, kernel, dy.data(), position.positions(), dx.data(), nullptr),
             "max_pool_grad");
    succeeds(cuda::max_pool_select(p, kernel, x.data(), position.positions(), selected.data(), nullptr),
             "max_pool_select");
    succeeds(cuda::avg_pool(p, kernel, x.data(), mean.data(), nullptr), "avg_pool");
    succeeds(cuda::avg_pool_grad(p, kernel, dy.data(), mean_dx.data(), nullptr), "avg_pool_grad");
  }

  int64_t size, inputs, outputs;
  Buffer x, dy, y, position, dx, selected, mean, mean_dx;
};

}  // namespace

TEST(unaligned_pooling) {
  for (const DType dtype : kDTypes) {
    for (const int64_t taps : {2, 3, 4}) {
      PoolProblem p;
      p.dtype = dtype;
      p.batch = p.operand_batch = p.position_batch = 2;
      p.channels = 16;
      p.axis[1] = Axis{7, taps, 4, 2, 1, 1, 1};
      p.axis[2] = Axis{6, taps, 3, 2, 1, 1, 1};
      const Pooled aligned(p, 0);
      for (const int64_t offset : {1, 2}) {
        const Pooled off(p, offset);
        const std::string where = " of dtype " + std::to_string(static_cast<int>(dtype)) + ", " +
                                  std::to_string(taps) + " taps, off by " + std::to_string(offset);
        check(off.y == aligned.y, "y" + where);
        check(off.position == aligned.position, "position" + where);
        check(off.dx == aligned.dx, "dx" + where);
        check(off.selected == aligned.selected, "selected" + where);
        check(off.mean == aligned.mean, "the mean" + where);
        check(off.mean_dx == aligned.mean_dx, "the mean's dx" + where);
      }
    }
  }
}

TEST(unaligned_bgrad) {
  for (const DType dtype : kDTypes) {
    for (const int64_t channels : {3, 16, 300}) {
      const BiasProblem p{dtype, 5003, channels};
      const int64_t size = bytes_of(dtype), count = p.rows * channels;
      Buffer aligned_db(channels * size, 0);
      for (const int64_t offset : {0, 1, 2}) {
        Buffer dy(count * size, offset * size), db(channels * size, offset * size);
        Buffer workspace(cuda::bgrad_workspace_bytes(p), 0);
        fill(dy, count * size, dtype);
        succeeds(cuda::bgrad(p, cuda::PoolKernel::kVector, dy.data(), offset ? db.data() : aligned_db.data(),
                             workspace.data(), nullptr),
                 "bgrad");
        if (offset) {
          check(db == aligned_db, "db of dtype " + std::to_string(static_cast<int>(dtype)) + ", " +
                                      std::to_string(channels) + " channels, off by " +
                                      std::to_string(offset));
        }
      }
    }
  }
}
