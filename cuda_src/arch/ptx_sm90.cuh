// The instructions of compute capability 9.0a that copy and multiply tiles asynchronously, one function each:
// mbarriers, the tensor memory accelerator (TMA), and wgmma, the tensor-core instruction of four warps
// together.
//
// A thread that reads what TMA has written first waits on the barrier that the load completes. The sums of
// wgmma are valid after the wait for its group; until then it may still read its operands in shared memory.
// All 128 threads of a warpgroup (four warps, the first a multiple of four) must reach wgmma, its fence,
// commit and wait together.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "common_src/major.h"
#include "common_src/number.h"
#include "cuda_src/arch/ptx.cuh"
#include "cuda_src/arch/tensor_map.h"

namespace convgrad::cuda {

// The module also holds code for other devices, for which the plan chooses no kernel that calls these.
#if defined(__CUDA_ARCH__) && !defined(__CUDA_ARCH_FEAT_SM90_ALL)
#define CONVGRAD_ASM_SM90A(...) __trap()
#else
#define CONVGRAD_ASM_SM90A(...) asm volatile(__VA_ARGS__)
#endif

// -------------------------------------------------------------------------------------------------- mbarrier
// A phase of a barrier ends when `arrivals` threads have arrived and all expected bytes have come. Phases are
// distinguished by parity; the first has parity 0.

__device__ __forceinline__ void mbarrier_init(uint64_t* barrier, unsigned arrivals) {
  CONVGRAD_ASM_SM90A("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(detail::shared_address(barrier)),
                     "r"(arrivals) : "memory");
}
// Makes inits visible to TMA. Called by the thread that initialised; a __syncthreads() must follow.
__device__ __forceinline__ void mbarrier_init_fence() {
  CONVGRAD_ASM_SM90A("fence.mbarrier_init.release.cluster;" :: : "memory");
}
__device__ __forceinline__ void mbarrier_arrive(uint64_t* barrier) {
  CONVGRAD_ASM_SM90A(
      "mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(detail::shared_address(barrier)) : "memory");
}
// Arrives, and adds `bytes` to what the phase waits for.
__device__ __forceinline__ void mbarrier_arrive_expect(uint64_t* barrier, unsigned bytes) {
  CONVGRAD_ASM_SM90A(
      "mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(detail::shared_address(barrier)),
      "r"(bytes) : "memory");
}
// Returns when the phase of this parity has ended.
__device__ __forceinline__ void mbarrier_wait(uint64_t* barrier, unsigned parity) {
  CONVGRAD_ASM_SM90A(
      "{\n"
      ".reg .pred ended;\n"
      "again:\n"
      "mbarrier.try_wait.parity.shared::cta.b64 ended, [%0], %1;\n"
      "@ended bra done;\n"
      "bra again;\n"
      "done:\n"
      "}" ::"r"(detail::shared_address(barrier)),
      "r"(parity) : "memory");
}

// ------------------------------------------------------------------------------------------------------- TMA
// One thread starts the copy of a tile to shared memory, at a multiple of 1024 bytes. All bytes, also those
// of zeros, complete on the barrier.

__device__ __forceinline__ void tma_prefetch(const TensorMap& map) {
  CONVGRAD_ASM_SM90A("prefetch.tensormap [%0];" ::"l"(&map) : "memory");
}

// Loads the tile whose first element has these coordinates, innermost first.
template <int kRank>
__device__ __forceinline__ void tma_load(void* shared, const TensorMap& map, uint64_t* barrier,
                                         const int (&at)[kRank]) {
  static_assert(kRank == 2 || kRank == 3);
  const uint32_t to = detail::shared_address(shared), done = detail::shared_address(barrier);
  if constexpr (kRank == 2)
    CONVGRAD_ASM_SM90A(
        "cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes "
        "[%0], [%1, {%3, %4}], [%2];" ::"r"(to),
        "l"(&map), "r"(done), "r"(at[0]), "r"(at[1]) : "memory");
  if constexpr (kRank == 3)
    CONVGRAD_ASM_SM90A(
        "cp.async.bulk.tensor.3d.shared::cluster.global.tile.mbarrier::complete_tx::bytes "
        "[%0], [%1, {%3, %4, %5}], [%2];" ::"r"(to),
        "l"(&map), "r"(done), "r"(at[0]), "r"(at[1]), "r"(at[2]) : "memory");
}

// Loads the tile of an im2col map whose first channel, first base pixel and image are at {C, W[, H[, D]], N}.
// The offset {W[, H[, D]]} is added to every pixel.
template <int kRank>
__device__ __forceinline__ void tma_load_im2col(void* shared, const TensorMap& map, uint64_t* barrier,
                                                const int (&at)[kRank], const int (&offset)[kRank - 2]) {
  static_assert(kRank >= 3 && kRank <= 5);
  const uint32_t to = detail::shared_address(shared), done = detail::shared_address(barrier);
  uint16_t by[kRank - 2];
#pragma unroll
  for (int a = 0; a < kRank - 2; ++a) by[a] = static_cast<uint16_t>(offset[a]);
  if constexpr (kRank == 3)
    CONVGRAD_ASM_SM90A(
        "cp.async.bulk.tensor.3d.shared::cluster.global.im2col.mbarrier::complete_tx::bytes "
        "[%0], [%1, {%3, %4, %5}], [%2], {%6};" ::"r"(to),
        "l"(&map), "r"(done), "r"(at[0]), "r"(at[1]), "r"(at[2]), "h"(by[0]) : "memory");
  if constexpr (kRank == 4)
    CONVGRAD_ASM_SM90A(
        "cp.async.bulk.tensor.4d.shared::cluster.global.im2col.mbarrier::complete_tx::bytes "
        "[%0], [%1, {%3, %4, %5, %6}], [%2], {%7, %8};" ::"r"(to),
        "l"(&map), "r"(done), "r"(at[0]), "r"(at[1]), "r"(at[2]), "r"(at[3]), "h"(by[0]),
        "h"(by[1]) : "memory");
  if constexpr (kRank == 5)
    CONVGRAD_ASM_SM90A(
        "cp.async.bulk.tensor.5d.shared::cluster.global.im2col.mbarrier::complete_tx::bytes "
        "[%0], [%1, {%3, %4, %5, %6, %7}], [%2], {%8, %9, %10};" ::"r"(to),
        "l"(&map), "r"(done), "r"(at[0]), "r"(at[1]), "r"(at[2]), "r"(at[3]), "r"(at[4]), "h"(by[0]),
        "h"(by[1]), "h"(by[2]) : "memory");
}

// ----------------------------------------------------------------------------------------------------- wgmma

// Describes an operand whose lines have 128 bytes and are swizzled. K-major: a line is 64 numbers of a row's
// depth, and groups of eight rows are `stride_bytes` apart. MN-major: a line is 64 rows at one depth, groups
// of eight depths are `stride_bytes` apart, groups of 64 rows `leading_bytes`.
__device__ __forceinline__ uint64_t wgmma_operand(const void* shared, int leading_bytes, int stride_bytes) {
  constexpr uint64_t kSwizzle128 = uint64_t{1} << 62;
  const auto field = [](uint32_t bytes) { return static_cast<uint64_t>((bytes & 0x3ffff) >> 4); };
  return field(detail::shared_address(shared)) | field(static_cast<uint32_t>(leading_bytes)) << 16 |
         field(static_cast<uint32_t>(stride_bytes)) << 32 | kSwizzle128;
}

// Needed before the first wgmma, and after other instructions have touched its sums.
__device__ __forceinline__ void wgmma_fence() {
  CONVGRAD_ASM_SM90A("wgmma.fence.sync.aligned;" :: : "memory");
}
__device__ __forceinline__ void wgmma_commit() {
  CONVGRAD_ASM_SM90A("wgmma.commit_group.sync.aligned;" :: : "memory");
}
// Waits until at most the latest kPending groups are in flight. After a wait for all groups the sums may be
// read; they are operands of an empty asm, so that the compiler moves no use of them in front of the wait.
template <int kPending, int kSums>
__device__ __forceinline__ void wgmma_wait(float (&d)[kSums]) {
  CONVGRAD_ASM_SM90A("wgmma.wait_group.sync.aligned %0;" ::"n"(kPending) : "memory");
  if constexpr (kPending == 0) {
#pragma unroll
    for (int i = 0; i < kSums; ++i) asm volatile("" : "+f"(d[i])::"memory");
  }
}

namespace detail {
template <typename Stored, int kColumns>
struct Wgmma;

// Names of the registers of the sums in the assembler's text, and the sums as operands, in groups of 8 and
// 32.
#define CONVGRAD_NAMES_32                                                  \
  "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, " \
  "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31"
#define CONVGRAD_NAMES_64                                                              \
  CONVGRAD_NAMES_32                                                                    \
  ", %32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, " \
  "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63"
#define CONVGRAD_NAMES_128                                                                       \
  CONVGRAD_NAMES_64                                                                              \
  ", %64, %65, %66, %67, %68, %69, %70, %71, %72, %73, %74, %75, %76, %77, %78, %79, "           \
  "%80, %81, %82, %83, %84, %85, %86, %87, %88, %89, %90, %91, %92, %93, %94, %95, "             \
  "%96, %97, %98, %99, %100, %101, %102, %103, %104, %105, %106, %107, %108, %109, %110, %111, " \
  "%112, %113, %114, %115, %116, %117, %118, %119, %120, %121, %122, %123, %124, %125, %126, %127"
#define CONVGRAD_SUMS_8(i)                                                                    \
  "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3]), "+f"(d[i + 4]), "+f"(d[i + 5]), \
      "+f"(d[i + 6]), "+f"(d[i + 7])
#define CONVGRAD_SUMS_32(i) \
  CONVGRAD_SUMS_8(i), CONVGRAD_SUMS_8(i + 8), CONVGRAD_SUMS_8(i + 16), CONVGRAD_SUMS_8(i + 24)
#define CONVGRAD_SUMS_64 CONVGRAD_SUMS_32(0), CONVGRAD_SUMS_32(32)
#define CONVGRAD_SUMS_128 CONVGRAD_SUMS_64, CONVGRAD_SUMS_32(64), CONVGRAD_SUMS_32(96)

// The operands a and b, and whether each is transposed (MN-major), follow the sums: %a, %b, %ta and %tb.
#define CONVGRAD_WGMMA(Stored, type, columns, names, SUMS, a_name, b_name, ta_name, tb_name)            \
  template <>                                                                                           \
  struct Wgmma<Stored, columns> {                                                                       \
    template <int kTransposeA, int kTransposeB>                                                         \
    __device__ __forceinline__ static void run(float (&d)[columns / 2], uint64_t a, uint64_t b) {       \
      CONVGRAD_ASM_SM90A(                                                                               \
          "{\n.reg .pred add;\nsetp.eq.u32 add, 0, 0;\n"                                                \
          "wgmma.mma_async.sync.aligned.m64n" #columns "k16.f32." type "." type " {" names "}, " a_name \
          ", " b_name ", add, 1, 1, " ta_name ", " tb_name ";\n}" : SUMS : "l"(a),                      \
          "l"(b), "n"(kTransposeA), "n"(kTransposeB) : "memory");                                       \
    }                                                                                                   \
  };
CONVGRAD_WGMMA(BFloat16, "bf16", 64, CONVGRAD_NAMES_32, CONVGRAD_SUMS_32(0), "%32", "%33", "%34", "%35")
CONVGRAD_WGMMA(BFloat16, "bf16", 128, CONVGRAD_NAMES_64, CONVGRAD_SUMS_64, "%64", "%65", "%66", "%67")
CONVGRAD_WGMMA(BFloat16, "bf16", 256, CONVGRAD_NAMES_128, CONVGRAD_SUMS_128, "%128", "%129", "%130", "%131")
CONVGRAD_WGMMA(Float16, "f16", 64, CONVGRAD_NAMES_32, CONVGRAD_SUMS_32(0), "%32", "%33", "%34", "%35")
CONVGRAD_WGMMA(Float16, "f16", 128, CONVGRAD_NAMES_64, CONVGRAD_SUMS_64, "%64", "%65", "%66", "%67")
CONVGRAD_WGMMA(Float16, "f16", 256, CONVGRAD_NAMES_128, CONVGRAD_SUMS_128, "%128", "%129", "%130", "%131")
#undef CONVGRAD_WGMMA

// The same with a in four registers instead of a descriptor, and b K-major.
template <int kColumns>
struct WgmmaTF32;
#define CONVGRAD_WGMMA_TF32(columns, names, SUMS, a0, a1, a2, a3, b_name)                                   \
  template <>                                                                                               \
  struct WgmmaTF32<columns> {                                                                               \
    __device__ __forceinline__ static void run(float (&d)[columns / 2], const uint32_t (&a)[4],             \
                                               uint64_t b) {                                                \
      CONVGRAD_ASM_SM90A(                                                                                   \
          "{\n.reg .pred add;\nsetp.eq.u32 add, 0, 0;\n"                                                    \
          "wgmma.mma_async.sync.aligned.m64n" #columns "k8.f32.tf32.tf32 {" names "}, {" a0 ", " a1 ", " a2 \
          ", " a3 "}, " b_name ", add, 1, 1;\n}" : SUMS : "r"(a[0]),                                        \
          "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b) : "memory");                                              \
    }                                                                                                       \
  };
CONVGRAD_WGMMA_TF32(64, CONVGRAD_NAMES_32, CONVGRAD_SUMS_32(0), "%32", "%33", "%34", "%35", "%36")
CONVGRAD_WGMMA_TF32(128, CONVGRAD_NAMES_64, CONVGRAD_SUMS_64, "%64", "%65", "%66", "%67", "%68")
CONVGRAD_WGMMA_TF32(256, CONVGRAD_NAMES_128, CONVGRAD_SUMS_128, "%128", "%129", "%130", "%131", "%132")
#undef CONVGRAD_WGMMA_TF32
#undef CONVGRAD_NAMES_32
#undef CONVGRAD_NAMES_64
#undef CONVGRAD_NAMES_128
#undef CONVGRAD_SUMS_8
#undef CONVGRAD_SUMS_32
#undef CONVGRAD_SUMS_64
#undef CONVGRAD_SUMS_128
}  // namespace detail

// Computes d += a b: 64 rows of a by kColumns columns of b, 16 deep, products of 16-bit numbers summed in
// f32. With g, t and w a thread's lane / 4, lane % 4 and warp in the warpgroup, d[4j + 2h + e] is row 16w + g
// + 8h, column 8j + 2t + e.
template <typename Stored, int kColumns, Major kA, Major kB>
__device__ __forceinline__ void wgmma(float (&d)[kColumns / 2], uint64_t a, uint64_t b) {
  detail::Wgmma<Stored, kColumns>::template run<kA == Major::kMN, kB == Major::kMN>(d, a, b);
}

// Computes d += a b in TF32, 8 deep. a is in registers, already rounded (see to_tf32); b is K-major. With g,
// t and w as above, a[0] is row 16w + g, column t; a[1] row 16w + g + 8; a[2] column t + 4; a[3] both. The
// tensor cores read these registers until the wait for the group.
template <int kColumns>
__device__ __forceinline__ void wgmma_tf32(float (&d)[kColumns / 2], const uint32_t (&a)[4], uint64_t b) {
  detail::WgmmaTF32<kColumns>::run(d, a, b);
}

// ------------------------------------------------------------------------------------------------- registers

// Change the registers of each thread of a warpgroup: multiples of 8, from 24 to 256.
template <int kRegisters>
__device__ __forceinline__ void raise_registers() {
  CONVGRAD_ASM_SM90A("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(kRegisters));
}
template <int kRegisters>
__device__ __forceinline__ void lower_registers() {
  CONVGRAD_ASM_SM90A("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(kRegisters));
}

#undef CONVGRAD_ASM_SM90A

}  // namespace convgrad::cuda
