// Computes result[e] = sum over part of partials[part,e], the second half of every split sum, in the order of
// the parts.
//
// With many parts, several threads share an element: each adds a contiguous range of parts, and the first
// thread adds the ranges' sums in order. A single thread would wait for memory hundreds of times in sequence.
#include "common_src/dispatch.h"
#include "common_src/integers.h"
#include "cuda_src/arch/launch.cuh"
#include "cuda_src/arch/shared_memory.cuh"
#include "cuda_src/conv_kernels.h"

namespace convgrad::cuda {
namespace {

// Threads per element if there are many parts; a block has kElementThreads threads.
constexpr int kManyStretches = 32;

template <typename Stored, int kStretches>
__global__ void add_parts_kernel(const Sum<Stored>* partials, Stored* result, int64_t parts, int64_t count) {
  using Value = Sum<Stored>;
  constexpr int kElements = kElementThreads / kStretches;
  const int element = static_cast<int>(threadIdx.x) % kElements;
  const int stretch = static_cast<int>(threadIdx.x) / kElements;
  const int64_t length = tiles_over(parts, kStretches);
  const int64_t begin = stretch * length, end = begin + length < parts ? begin + length : parts;
  Value* sums = kStretches == 1 ? nullptr : shared_memory<Value>();  // [stretch][element]
  // All threads of the block make the same number of turns, because they meet at barriers.
  for (int64_t first = static_cast<int64_t>(blockIdx.x) * kElements; first < count;
       first += static_cast<int64_t>(gridDim.x) * kElements) {
    const int64_t e = first + element;
    Value sum = 0;
    if (e < count) {
#pragma unroll 4
      for (int64_t part = begin; part < end; ++part) sum += partials[part * count + e];
    }
    if constexpr (kStretches > 1) {
      sums[threadIdx.x] = sum;
      __syncthreads();
      sum = 0;
      for (int s = 0; s < kStretches && stretch == 0; ++s) sum += sums[s * kElements + element];
      __syncthreads();
    }
    if (stretch == 0 && e < count) result[e] = narrow<Stored>(sum);
  }
}

}  // namespace

cudaError_t add_parts(DType dtype, const void* partials, void* result, int64_t parts, int64_t count,
                      cudaStream_t stream) {
  return dispatch(dtype, [&](auto tag) {
    using Stored = typename decltype(tag)::type;
    const bool many = parts >= kManyStretches;
    const int64_t elements = many ? kElementThreads / kManyStretches : kElementThreads;
    const int64_t blocks = std::min(count / elements + (count % elements != 0), kElementBlocks);
    return launch_blocks(many ? add_parts_kernel<Stored, kManyStretches> : add_parts_kernel<Stored, 1>,
                         blocks, kElementThreads, many ? kElementThreads * sizeof(Sum<Stored>) : 0, stream,
                         static_cast<const Sum<Stored>*>(partials), static_cast<Stored*>(result), parts,
                         count);
  });
}

}  // namespace convgrad::cuda
