// The functions that CUDA adds to the global namespace of the C library.
#pragma once

#include <math.h>

#include <cstdint>
#include <cstring>

// The same overloads as CUDA's, so that a call that is ambiguous there is ambiguous here.
#define CUDA_EMULATOR_MIN_MAX(Result, A, B)                                          \
  constexpr Result min(A a, B b) {                                                   \
    return static_cast<Result>(a) < static_cast<Result>(b) ? static_cast<Result>(a)  \
                                                           : static_cast<Result>(b); \
  }                                                                                  \
  constexpr Result max(A a, B b) {                                                   \
    return static_cast<Result>(a) > static_cast<Result>(b) ? static_cast<Result>(a)  \
                                                           : static_cast<Result>(b); \
  }

CUDA_EMULATOR_MIN_MAX(int, int, int)
CUDA_EMULATOR_MIN_MAX(unsigned int, unsigned int, unsigned int)
CUDA_EMULATOR_MIN_MAX(unsigned int, int, unsigned int)
CUDA_EMULATOR_MIN_MAX(unsigned int, unsigned int, int)
CUDA_EMULATOR_MIN_MAX(long, long, long)
CUDA_EMULATOR_MIN_MAX(unsigned long, unsigned long, unsigned long)
CUDA_EMULATOR_MIN_MAX(unsigned long, long, unsigned long)
CUDA_EMULATOR_MIN_MAX(unsigned long, unsigned long, long)
CUDA_EMULATOR_MIN_MAX(long long, long long, long long)
CUDA_EMULATOR_MIN_MAX(unsigned long long, unsigned long long, unsigned long long)
CUDA_EMULATOR_MIN_MAX(unsigned long long, long long, unsigned long long)
CUDA_EMULATOR_MIN_MAX(unsigned long long, unsigned long long, long long)

#undef CUDA_EMULATOR_MIN_MAX

// A number wins against NaN, as in fmin and fmax.
inline float min(float a, float b) { return fminf(a, b); }
inline float max(float a, float b) { return fmaxf(a, b); }
inline double min(double a, double b) { return fmin(a, b); }
inline double max(double a, double b) { return fmax(a, b); }
inline double min(float a, double b) { return fmin(a, b); }
inline double max(float a, double b) { return fmax(a, b); }
inline double min(double a, float b) { return fmin(a, b); }
inline double max(double a, float b) { return fmax(a, b); }

template <typename T>
T __ldg(const T* address) {
  return *address;
}

namespace cuda_emulator {
template <typename To, typename From>
To bits_as(From from) {
  static_assert(sizeof(To) == sizeof(From));
  To to;
  std::memcpy(&to, &from, sizeof to);
  return to;
}
}  // namespace cuda_emulator

inline int __float_as_int(float v) { return cuda_emulator::bits_as<int>(v); }
inline unsigned __float_as_uint(float v) { return cuda_emulator::bits_as<unsigned>(v); }
inline float __int_as_float(int v) { return cuda_emulator::bits_as<float>(v); }
inline float __uint_as_float(unsigned v) { return cuda_emulator::bits_as<float>(v); }

inline int __popc(unsigned v) { return __builtin_popcount(v); }
inline int __clz(int v) { return v == 0 ? 32 : __builtin_clz(static_cast<unsigned>(v)); }
inline int __ffs(int v) { return __builtin_ffs(v); }
inline unsigned __umulhi(unsigned a, unsigned b) {
  return static_cast<unsigned>((static_cast<uint64_t>(a) * b) >> 32);
}
