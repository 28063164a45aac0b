// LongSum (common_src/long_sum.h) for a vector of channels: the same sums in the same order, with one counter
// for all lanes.
#pragma once

#include "common_src/long_sum.h"
#include "cuda_src/lanes.cuh"

namespace convgrad::cuda {

// kShort promises at most kSumRun terms, so that the sum is a single run.
template <typename Value, int kLanes, bool kShort>
class LongLanes {
 public:
  __device__ __forceinline__ void add(const Lanes<Value, kLanes>& term) {
    add(run_, term);
    if constexpr (!kShort) {
      if (++length_ % kSumRun != 0) return;
      move(run_, runs_);
      if (length_ % (kSumRun * kSumRun) == 0) move(runs_, total_);
    }
  }

  __device__ __forceinline__ Lanes<Value, kLanes> value() const {
    Lanes<Value, kLanes> value = run_;
    if constexpr (!kShort) {
      add(value, runs_);
      add(value, total_);
    }
    return value;
  }

 private:
  __device__ __forceinline__ static void add(Lanes<Value, kLanes>& sum, const Lanes<Value, kLanes>& term) {
#pragma unroll
    for (int l = 0; l < kLanes; ++l) sum.lane[l] += term.lane[l];
  }
  __device__ __forceinline__ static void move(Lanes<Value, kLanes>& from, Lanes<Value, kLanes>& to) {
    add(to, from);
    from = all_lanes<kLanes>(Value{0});
  }

  static constexpr int32_t kSumRun = static_cast<int32_t>(convgrad::kSumRun);
  Lanes<Value, kLanes> run_ = all_lanes<kLanes>(Value{0}), runs_ = run_, total_ = run_;
  int32_t length_ = 0;
};

}  // namespace convgrad::cuda
