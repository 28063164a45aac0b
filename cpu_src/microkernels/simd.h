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

// x86-64 without AVX2 serves only processors from before 2013 and the smallest later ones. Its kernels would
// take as long to compile as those of the other instruction sets, so they unroll less, as if for 10 registers
// of 16.
#if defined(__AVX512F__)
inline constexpr int kVectorBytes = 64, kVectorRegisters = 32;
inline constexpr bool kOldProcessor = false;
#elif defined(__AVX2__)
inline constexpr int kVectorBytes = 32, kVectorRegisters = 16;
inline constexpr bool kOldProcessor = false;
#elif defined(__aarch64__)
inline constexpr int kVectorBytes = 16, kVectorRegisters = 32;
inline constexpr bool kOldProcessor = false;
#else
inline constexpr int kVectorBytes = 16, kVectorRegisters = 10;
inline constexpr bool kOldProcessor = true;
#endif

// The registers that tiles of sums may fill. 32 would not make tiles of double faster, which load as many
// vectors per multiply-add with 16, but they would take twice as long to compile.
template <typename S>
inline constexpr int kTileRegisters = sizeof(S) == 8 && kVectorRegisters > 16 ? 16 : kVectorRegisters;

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
#elif defined(__aarch64__)
  // The table holds bytes: byte b of a lane is at index * size + b.
  if constexpr (sizeof v[0] == 4)
    return (V)vqtbl1q_u8((uint8x16_t)v, (uint8x16_t)((index & 3) * 0x04040404 + 0x03020100));
  if constexpr (sizeof v[0] == 8)
    return (V)vqtbl1q_u8((uint8x16_t)v, (uint8x16_t)((index & 1) * 0x0808080808080808 + 0x0706050403020100));
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
#elif defined(__aarch64__)
  const uint8x16x2_t both = {(uint8x16_t)a, (uint8x16_t)b};
  if constexpr (sizeof a[0] == 4)
    return (V)vqtbl2q_u8(both, (uint8x16_t)((index & 7) * 0x04040404 + 0x03020100));
  if constexpr (sizeof a[0] == 8)
    return (V)vqtbl2q_u8(both, (uint8x16_t)((index & 3) * 0x0808080808080808 + 0x0706050403020100));
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

#if defined(__AVX2__) && !defined(__AVX512F__)
// All bits of a lane are set if it is among the first `count`, 0 <= count <= kLanes.
template <typename S>
CONVGRAD_INLINE __m256i first_lanes(int64_t count) {
  if constexpr (sizeof(S) == 4)
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(static_cast<int>(count)),
                              _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
  else
    return _mm256_cmpgt_epi64(_mm256_set1_epi64x(count), _mm256_setr_epi64x(0, 1, 2, 3));
}
#endif

// Loads the first `count` lanes, 0 <= count <= kLanes; the others are zero, and their memory is not touched.
template <typename S>
CONVGRAD_INLINE Vec<S> load_first(const S* src, int64_t count) {
#if defined(__AVX512F__)
  const unsigned mask = (1u << count) - 1u;
  if constexpr (sizeof(S) == 4)
    return (Vec<S>)_mm512_maskz_loadu_ps(static_cast<__mmask16>(mask), src);
  else
    return (Vec<S>)_mm512_maskz_loadu_pd(static_cast<__mmask8>(mask), src);
#elif defined(__AVX2__)
  if constexpr (sizeof(S) == 4)
    return (Vec<S>)_mm256_maskload_epi32(reinterpret_cast<const int*>(src), first_lanes<S>(count));
  else
    return (Vec<S>)_mm256_maskload_epi64(reinterpret_cast<const long long*>(src), first_lanes<S>(count));
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
#elif defined(__AVX2__)
  if constexpr (sizeof(S) == 4)
    _mm256_maskstore_epi32(reinterpret_cast<int*>(dst), first_lanes<S>(count), (__m256i)v);
  else
    _mm256_maskstore_epi64(reinterpret_cast<long long*>(dst), first_lanes<S>(count), (__m256i)v);
#else
  for (int64_t lane = 0; lane < count; ++lane) dst[lane] = v[lane];
#endif
}

// As many numbers of 16 bits as a vector has lanes of float.
typedef uint16_t Bits16 __attribute__((vector_size(kVectorBytes / 2)));

// Convert as widen() and narrow() do (common_src/number.h), a vector at a time.
template <typename T>
Vec<float> widen_bits(Bits16);
template <typename T>
Bits16 narrow_bits(Vec<float>);

template <>
CONVGRAD_INLINE Vec<float> widen_bits<BFloat16>(Bits16 bits) {
  // g++ would convert halves of the vector and join them.
#if defined(__AVX512F__)
  return (Vec<float>)_mm512_slli_epi32(_mm512_cvtepu16_epi32((__m256i)bits), 16);
#elif defined(__AVX2__)
  return (Vec<float>)_mm256_slli_epi32(_mm256_cvtepu16_epi32((__m128i)bits), 16);
#else
  typedef uint32_t Wide __attribute__((vector_size(kVectorBytes)));
  return (Vec<float>)(__builtin_convertvector(bits, Wide) << 16);
#endif
}

#if defined(CONVGRAD_BF16_DOTS)
template <>
CONVGRAD_INLINE Bits16 narrow_bits<BFloat16>(Vec<float> v) {
  return (Bits16)_mm512_cvtneps_pbh((__m512)v);  // subnormal numbers become zero
}
#else
template <>
CONVGRAD_INLINE Bits16 narrow_bits<BFloat16>(Vec<float> v) {
  typedef uint32_t Wide __attribute__((vector_size(kVectorBytes)));
  const Wide bits = (Wide)v;
  const Wide rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
  const Wide quiet = (bits >> 16) | 0x40u;  // a NaN, which rounding could make infinite
  const Wide is_nan = (Wide)((bits & 0x7fffffffu) > 0x7f800000u);
  return __builtin_convertvector((quiet & is_nan) | (rounded & ~is_nan), Bits16);
}
#endif

#if defined(__AVX512F__)
template <>
CONVGRAD_INLINE Vec<float> widen_bits<Float16>(Bits16 bits) {
  return (Vec<float>)_mm512_cvtph_ps((__m256i)bits);
}
template <>
CONVGRAD_INLINE Bits16 narrow_bits<Float16>(Vec<float> v) {
  return (Bits16)_mm512_cvtps_ph((__m512)v, _MM_FROUND_TO_NEAREST_INT);
}
#elif defined(__F16C__)
template <>
CONVGRAD_INLINE Vec<float> widen_bits<Float16>(Bits16 bits) {
  return (Vec<float>)_mm256_cvtph_ps((__m128i)bits);
}
template <>
CONVGRAD_INLINE Bits16 narrow_bits<Float16>(Vec<float> v) {
  return (Bits16)_mm256_cvtps_ph((__m256)v, _MM_FROUND_TO_NEAREST_INT);
}
#elif defined(__aarch64__)
template <>
CONVGRAD_INLINE Vec<float> widen_bits<Float16>(Bits16 bits) {
  return (Vec<float>)vcvt_f32_f16((float16x4_t)bits);
}
template <>
CONVGRAD_INLINE Bits16 narrow_bits<Float16>(Vec<float> v) {
  return (Bits16)vcvt_f16_f32((float32x4_t)v);
}
#else
// Number by number, for machines without an instruction for it. Not inlined, because so much code in every
// place that reads or writes an f16 would take minutes to compile.
template <>
inline __attribute__((noinline)) Vec<float> widen_bits<Float16>(Bits16 bits) {
  Vec<float> v{};
  for (int lane = 0; lane < kLanes<float>; ++lane) v[lane] = widen(Float16{bits[lane]});
  return v;
}
template <>
inline __attribute__((noinline)) Bits16 narrow_bits<Float16>(Vec<float> v) {
  Bits16 bits{};
  for (int lane = 0; lane < kLanes<float>; ++lane) bits[lane] = narrow<Float16>(v[lane]).bits;
  return bits;
}
#endif

template <typename T>
CONVGRAD_INLINE Vec<float> load_narrow(const T* src) {
  Bits16 bits;
  __builtin_memcpy(&bits, src, sizeof bits);
  return widen_bits<T>(bits);
}
template <typename T>
CONVGRAD_INLINE void store_narrow(T* dst, Vec<float> v) {
  const Bits16 bits = narrow_bits<T>(v);
  __builtin_memcpy(dst, &bits, sizeof bits);
}
CONVGRAD_INLINE Vec<float> load(const BFloat16* src) { return load_narrow(src); }
CONVGRAD_INLINE Vec<float> load(const Float16* src) { return load_narrow(src); }
CONVGRAD_INLINE void store(BFloat16* dst, Vec<float> v) { store_narrow(dst, v); }
CONVGRAD_INLINE void store(Float16* dst, Vec<float> v) { store_narrow(dst, v); }

// Load and store the first `count` numbers of 16 bits.
#if defined(__AVX512BW__) && defined(__AVX512VL__)
CONVGRAD_INLINE Bits16 load_first_bits(const void* src, int64_t count) {
  return (Bits16)_mm256_maskz_loadu_epi16(static_cast<__mmask16>((1u << count) - 1u), src);
}
CONVGRAD_INLINE void store_first_bits(void* dst, Bits16 bits, int64_t count) {
  _mm256_mask_storeu_epi16(dst, static_cast<__mmask16>((1u << count) - 1u), (__m256i)bits);
}
#else
// Not inlined, for the same reason as above.
inline __attribute__((noinline)) Bits16 load_first_bits(const void* src, int64_t count) {
  uint16_t lanes[kLanes<float>] = {};
  for (int64_t lane = 0; lane < count; ++lane) lanes[lane] = static_cast<const uint16_t*>(src)[lane];
  Bits16 bits;
  __builtin_memcpy(&bits, lanes, sizeof bits);
  return bits;
}
inline __attribute__((noinline)) void store_first_bits(void* dst, Bits16 bits, int64_t count) {
  for (int64_t lane = 0; lane < count; ++lane) static_cast<uint16_t*>(dst)[lane] = bits[lane];
}
#endif

// Load and store the first `count` stored numbers, 0 <= count <= kLanes.
template <typename T>
CONVGRAD_INLINE Vec<Sum<T>> load_some(const T* src, int64_t count) {
  if constexpr (sizeof(T) == 2)
    return widen_bits<T>(load_first_bits(src, count));
  else
    return load_first(src, count);
}
template <typename T>
CONVGRAD_INLINE void store_some(T* dst, Vec<Sum<T>> v, int64_t count) {
  if constexpr (sizeof(T) == 2)
    store_first_bits(dst, narrow_bits<T>(v), count);
  else
    store_first(dst, v, count);
}

}  // namespace convgrad::cpu::CONVGRAD_ISA
