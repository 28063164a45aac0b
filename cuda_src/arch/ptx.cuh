// The tensor-core and asynchronous-copy instructions of compute capability 8.0, one function each.
//
// Fragments: with g = lane / 4 and t = lane % 4, a lane holds these elements, the earlier column (for b: row)
// in a register's lower half.
//   16-bit, 16x8x16   a[0] row g, columns 2t and 2t+1;  a[1] row g+8;  a[2] columns 2t+8 and 2t+9;
//                     a[3] both;  b[0] rows 2t and 2t+1 of column g;  b[1] rows 2t+8 and 2t+9
//   tf32, 16x8x8      a[0] row g, column t;  a[1] row g+8;  a[2] column t+4;  a[3] both;
//                     b[0] row t of column g;  b[1] row t+4
//   f32 results       d[0], d[1] row g, columns 2t and 2t+1;  d[2], d[3] row g+8
//   f64, 8x8x4        a row g, column t;  b row t, column g;  d[0], d[1] row g, columns 2t and 2t+1
// The order in which a tensor core adds the products of one instruction, and the rounding in between, are not
// specified for f32 results.
//
// All 32 lanes of a warp must reach these functions together, except to_tf32 and cp_async*. Each asm is
// volatile, so that the compiler moves none of them into a branch that only some lanes take.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

namespace convgrad::cuda {

// The module also holds code for compute capability 7.5, for which the plan chooses no kernel that calls
// these.
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 800
#define CONVGRAD_ASM_SM80(...) __trap()
#else
#define CONVGRAD_ASM_SM80(...) asm volatile(__VA_ARGS__)
#endif

namespace detail {
__device__ __forceinline__ uint32_t shared_address(const void* shared) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(shared));
}
}  // namespace detail

// Starts a copy of kBytes from global to shared memory, or fills them with zeros if not `valid`. An invalid
// copy reads nothing, but `global` must still be an aligned pointer. Both addresses are multiples of kBytes.
// Copies of 16 bytes bypass the L1 cache.
template <int kBytes>
__device__ __forceinline__ void cp_async(void* shared, const void* global, bool valid) {
  static_assert(kBytes == 4 || kBytes == 8 || kBytes == 16);
  if constexpr (kBytes == 16)
    CONVGRAD_ASM_SM80("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(detail::shared_address(shared)),
                      "l"(__cvta_generic_to_global(global)), "r"(valid ? 16 : 0) : "memory");
  else
    CONVGRAD_ASM_SM80("cp.async.ca.shared.global [%0], [%1], %2, %3;" ::"r"(detail::shared_address(shared)),
                      "l"(__cvta_generic_to_global(global)), "n"(kBytes), "r"(valid ? kBytes : 0) : "memory");
}

// Groups the thread's copies since its last commit. An empty group counts as well.
__device__ __forceinline__ void cp_async_commit() {
  CONVGRAD_ASM_SM80("cp.async.commit_group;" :: : "memory");
}

// Waits until at most the thread's latest kPending groups are in flight. It does not wait for other threads'
// copies: a barrier must follow before this thread reads them.
template <int kPending>
__device__ __forceinline__ void cp_async_wait() {
  CONVGRAD_ASM_SM80("cp.async.wait_group %0;" ::"n"(kPending) : "memory");
}

// Loads 8 x 8 matrices of 16-bit elements whose rows are 16 contiguous bytes of shared memory. Lane 8j + i
// gives the address of row i of matrix j; d[j] is its row g, columns 2t and 2t+1, or if transposed rows 2t
// and 2t+1 of column g. For two matrices the addresses of lanes 16 and up are ignored.
__device__ __forceinline__ void ldmatrix_x4(uint32_t (&d)[4], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(d[0]), "=r"(d[1]), "=r"(d[2]), "=r"(d[3])
               : "r"(detail::shared_address(row))
               : "memory");
}
__device__ __forceinline__ void ldmatrix_x4_trans(uint32_t (&d)[4], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(d[0]), "=r"(d[1]), "=r"(d[2]), "=r"(d[3])
               : "r"(detail::shared_address(row))
               : "memory");
}
__device__ __forceinline__ void ldmatrix_x2(uint32_t (&d)[2], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%0, %1}, [%2];"
               : "=r"(d[0]), "=r"(d[1])
               : "r"(detail::shared_address(row))
               : "memory");
}
__device__ __forceinline__ void ldmatrix_x2_trans(uint32_t (&d)[2], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x2.trans.shared.b16 {%0, %1}, [%2];"
               : "=r"(d[0]), "=r"(d[1])
               : "r"(detail::shared_address(row))
               : "memory");
}

// Computes d += a b, in f32.
__device__ __forceinline__ void mma_bf16_16x8x16(float (&d)[4], const uint32_t (&a)[4],
                                                 const uint32_t (&b)[2]) {
  CONVGRAD_ASM_SM80(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
      "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};" : "+f"(d[0]),
      "+f"(d[1]), "+f"(d[2]), "+f"(d[3]) : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
__device__ __forceinline__ void mma_f16_16x8x16(float (&d)[4], const uint32_t (&a)[4],
                                                const uint32_t (&b)[2]) {
  CONVGRAD_ASM_SM80(
      "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 "
      "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};" : "+f"(d[0]),
      "+f"(d[1]), "+f"(d[2]), "+f"(d[3]) : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
// The tensor core ignores the lower 13 bits of a and b, so an f32 that was not rounded before is truncated.
__device__ __forceinline__ void mma_tf32_16x8x8(float (&d)[4], const uint32_t (&a)[4],
                                                const uint32_t (&b)[2]) {
  CONVGRAD_ASM_SM80(
      "mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 "
      "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};" : "+f"(d[0]),
      "+f"(d[1]), "+f"(d[2]), "+f"(d[3]) : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
// Computes d += a b, in f64.
__device__ __forceinline__ void mma_f64_8x8x4(double (&d)[2], double a, double b) {
  CONVGRAD_ASM_SM80(
      "mma.sync.aligned.m8n8k4.row.col.f64.f64.f64.f64 {%0, %1}, {%2}, {%3}, {%0, %1};" : "+d"(d[0]),
      "+d"(d[1]) : "d"(a), "d"(b));
}

// Rounds to 10 bits of mantissa, to nearest, ties away from zero.
__device__ __forceinline__ uint32_t to_tf32(float value) {
  uint32_t bits = 0;
  CONVGRAD_ASM_SM80("cvt.rna.tf32.f32 %0, %1;" : "=r"(bits) : "f"(value));
  return bits;
}

#undef CONVGRAD_ASM_SM80

}  // namespace convgrad::cuda
