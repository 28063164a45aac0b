// Vectors of the instruction set that this file is compiled for, with the compiler's vector extensions.
//
// Only files of this folder may include it. What they call must be inlined or in their own namespace
// (CONVGRAD_ISA): an inline function with a symbol of its own exists once in the program, and the linker may
// keep any of its compilations.
#pragma once

#include <cstddef>
#include <cstdint>
#include <type_traits>

#include "common_src/number.h"

#if defined(__AVX2__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

#define CONVGRAD_INLINE inline __attribute__((always_inline))
#define CONVGRAD_UNROLL _Pragma("GCC unroll 64")

namespace convgrad::cpu::CONVGRAD_ISA {

#if defined(__AVX512F__)
inline constexpr int kVectorBytes = 64, kVectorRegisters = 32;
#elif defined(__AVX2__)
inline constexpr int kVectorBytes = 32, kVectorRegisters = 16;
#elif defined(__aarch64__)
inline constexpr int kVectorBytes = 16, kVectorRegisters = 32;
#else
inline constexpr int kVectorBytes = 16, kVectorRegisters = 16;
#endif

// S is float or double, the types that sums run in.
template <typename S>
inline constexpr int kLanes = kVectorBytes / static_cast<int>(sizeof(S));

template <typename S>
struct VecOf {
  static_assert(std::is_arithmetic_v<S>);
  typedef S type __attribute__((vector_size(kVectorBytes)));
};
template <typename S>
using Vec = typename VecOf<std::enable_if_t<std::is_arithmetic_v<S>, S>>::type;

// Returns a vector whose lane l is lane index[l] of v, modulo the lanes.
template <typename V, typename Index>
CONVGRAD_INLINE V permute(V v, Index index) {
#if !defined(__clang__)
  return __builtin_shuffle(v, index);
#else
  static_assert(sizeof(V) == sizeof(Index) && sizeof v[0] == sizeof index[0]);
#if defined(__AVX512F__)
  if constexpr (sizeof v[0] == 4) return (V)_mm512_permutexvar_epi32((__m512i)index, (__m512i)v);
  if constexpr (sizeof v[0] == 8) return (V)_mm512_permutexvar_epi64((__m512i)index, (__m512i)v);
#elif defined(__AVX2__)
  if constexpr (sizeof v[0] == 4) return (V)_mm256_permutevar8x32_epi32((__m256i)v, (__m256i)index);
  if constexpr (sizeof v[0] == 8) {
    // Each lane is two halves, 2 * index and the one after.
    const Index low = (index & 3) << 1;
    return (V)_mm256_permutevar8x32_epi32((__m256i)v, (__m256i)(low | ((low + 1) << 32)));
  }
#else
  constexpr int lanes = kVectorBytes / static_cast<int>(sizeof v[0]);
  V permuted{};
  CONVGRAD_UNROLL
  for (int lane = 0; lane < lanes; ++lane) permuted[lane] = v[index[lane] & (lanes - 1)];
  return permuted;
#endif
#endif
}

// Returns a vector whose lane l is lane index[l] of a followed by b, modulo twice the lanes.
template <typename V, typename Index>
CONVGRAD_INLINE V permute(V a, V b, Index index) {
#if !defined(__clang__)
  return __builtin_shuffle(a, b, index);
#else
#if defined(__AVX512F__)
  if constexpr (sizeof a[0] == 4) return (V)_mm512_permutex2var_epi32((__m512i)a, (__m512i)index, (__m512i)b);
  if constexpr (sizeof a[0] == 8) return (V)_mm512_permutex2var_epi64((__m512i)a, (__m512i)index, (__m512i)b);
#else
  constexpr int lanes = kVectorBytes / static_cast<int>(sizeof a[0]);
  const Index of_b = (Index)((index & lanes) != 0);
  return (V)(((Index)permute(b, index) & of_b) | ((Index)permute(a, index) & ~of_b));
#endif
#endif
}

template <typename S>
CONVGRAD_INLINE Vec<S> load(const S* src) {
  Vec<S> v;
  __builtin_memcpy(&v, src, sizeof v);
  return v;
}

template <typename S>
CONVGRAD_INLINE void store(S* dst, Vec<S> v) {
  __builtin_memcpy(dst, &v, sizeof v);
}

// Stores to aligned memory past the caches, if there is an instruction for it; end_stream() orders such
// stores before all later ones.
template <typename S>
CONVGRAD_INLINE void stream(S* dst, Vec<S> v) {
#if defined(__AVX512F__)
  _mm512_stream_si512(reinterpret_cast<__m512i*>(dst), (__m512i)v);
#elif defined(__AVX2__)
  _mm256_stream_si256(reinterpret_cast<__m256i*>(dst), (__m256i)v);
#else
  store(dst, v);
#endif
}

CONVGRAD_INLINE void end_stream() {
#if defined(__AVX2__)
  _mm_sfence();
#endif
}

// Broadcasts s to every lane: s - 0 equals s for every s, but -0 + 0 does not equal -0.
template <typename S>
CONVGRAD_INLINE Vec<S> broadcast(S s) {
  return s - Vec<S>{};
}

// Loads the first `count` lanes, 0 <= count <= kLanes; the others are zero, and their memory is not touched.
template <typename S>
CONVGRAD_INLINE Vec<S> load_first(const S* src, int64_t count) {
#if defined(__AVX512F__)
  const unsigned mask = (1u << count) - 1u;
  if constexpr (sizeof(S) == 4)
    return (Vec<S>)_mm512_maskz_loadu_ps(static_cast<__mmask16>(mask), src);
  else
    return (Vec<S>)_mm512_maskz_loadu_pd(static_cast<__mmask8>(mask), src);
#else
  Vec<S> v{};
  for (int64_t lane = 0; lane < count; ++lane) v[lane] = src[lane];
  return v;
#endif
}

template <typename S>
CONVGRAD_INLINE void store_first(S* dst, Vec<S> v, int64_t count) {
#if defined(__AVX512F__)
  const unsigned mask = (1u << count) - 1u;
  if constexpr (sizeof(S) == 4)
    _mm512_mask_storeu_ps(dst, static_cast<__mmask16>(mask), (__m512)v);
  else
    _mm512_mask_storeu_pd(dst, static_cast<__mmask8>(mask), (__m512d)v);
#else
  for (int64_t lane = 0; lane < count; ++lane) dst[lane] = v[lane];
#endif
}

// Load and store as widen() and narrow() do (common_src/number.h), a vector at a time.

CONVGRAD_INLINE Vec<float> load(const BFloat16* src) {
  typedef uint16_t Bits __attribute__((vector_size(kVectorBytes / 2)));
  typedef uint32_t Wide __attribute__((vector_size(kVectorBytes)));
  Bits bits;
  __builtin_memcpy(&bits, src, sizeof bits);
  return (Vec<float>)(__builtin_convertvector(bits, Wide) << 16);
}

CONVGRAD_INLINE void store(BFloat16* dst, Vec<float> v) {
  typedef uint16_t Bits __attribute__((vector_size(kVectorBytes / 2)));
  typedef uint32_t Wide __attribute__((vector_size(kVectorBytes)));
  const Wide bits = (Wide)v;
  const Wide rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
  const Wide quiet = (bits >> 16) | 0x40u;  // a NaN, which rounding could make infinite
  const Wide is_nan = (Wide)((bits & 0x7fffffffu) > 0x7f800000u);
  const Bits narrow = __builtin_convertvector((quiet & is_nan) | (rounded & ~is_nan), Bits);
  __builtin_memcpy(dst, &narrow, sizeof narrow);
}

#if !defined(__F16C__) && !defined(__AVX512F__) && !defined(__aarch64__)
// Number by number, for machines without an instruction for it. Not inlined, because so much code in every
// place that reads or writes an f16 would take minutes to compile.
[[maybe_unused]] static __attribute__((noinline)) Vec<float> widen_lanes(const Float16* src) {
  Vec<float> v{};
  for (int lane = 0; lane < kLanes<float>; ++lane) v[lane] = widen(src[lane]);
  return v;
}

[[maybe_unused]] static __attribute__((noinline)) void narrow_lanes(Float16* dst, Vec<float> v) {
  for (int lane = 0; lane < kLanes<float>; ++lane) dst[lane] = narrow<Float16>(v[lane]);
}
#endif

CONVGRAD_INLINE Vec<float> load(const Float16* src) {
#if defined(__AVX512F__)
  return (Vec<float>)_mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(src)));
#elif defined(__F16C__)
  return (Vec<float>)_mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(src)));
#elif defined(__aarch64__)
  return (Vec<float>)vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(reinterpret_cast<const uint16_t*>(src))));
#else
  return widen_lanes(src);
#endif
}

CONVGRAD_INLINE void store(Float16* dst, Vec<float> v) {
#if defined(__AVX512F__)
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(dst), _mm512_cvtps_ph((__m512)v, _MM_FROUND_TO_NEAREST_INT));
#elif defined(__F16C__)
  _mm_storeu_si128(reinterpret_cast<__m128i*>(dst), _mm256_cvtps_ph((__m256)v, _MM_FROUND_TO_NEAREST_INT));
#elif defined(__aarch64__)
  vst1_u16(reinterpret_cast<uint16_t*>(dst), vreinterpret_u16_f16(vcvt_f16_f32((float32x4_t)v)));
#else
  narrow_lanes(dst, v);
#endif
}

}  // namespace convgrad::cpu::CONVGRAD_ISA
