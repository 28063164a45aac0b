// Vector types with CUDA's sizes and alignments: two or four elements are aligned to their total size, up to
// 16 bytes; three are aligned as one element.
#pragma once

#define CUDA_EMULATOR_VECTORS(Element, name, align2, align4)                              \
  struct alignas(align2) name##2 { Element x, y; };                                       \
  struct name##3 { Element x, y, z; };                                                    \
  struct alignas(align4) name##4 { Element x, y, z, w; };                                 \
  constexpr name##2 make_##name##2(Element x, Element y) { return {x, y}; }               \
  constexpr name##3 make_##name##3(Element x, Element y, Element z) { return {x, y, z}; } \
  constexpr name##4 make_##name##4(Element x, Element y, Element z, Element w) { return {x, y, z, w}; }

CUDA_EMULATOR_VECTORS(signed char, char, 2, 4)
CUDA_EMULATOR_VECTORS(unsigned char, uchar, 2, 4)
CUDA_EMULATOR_VECTORS(short, short, 4, 8)
CUDA_EMULATOR_VECTORS(unsigned short, ushort, 4, 8)
CUDA_EMULATOR_VECTORS(int, int, 8, 16)
CUDA_EMULATOR_VECTORS(unsigned int, uint, 8, 16)
CUDA_EMULATOR_VECTORS(float, float, 8, 16)
CUDA_EMULATOR_VECTORS(long long, longlong, 16, 16)
CUDA_EMULATOR_VECTORS(unsigned long long, ulonglong, 16, 16)
CUDA_EMULATOR_VECTORS(double, double, 16, 16)

#undef CUDA_EMULATOR_VECTORS

struct dim3 {
  unsigned int x, y, z;
  constexpr dim3(unsigned int x = 1, unsigned int y = 1, unsigned int z = 1) : x(x), y(y), z(z) {}
  constexpr dim3(uint3 v) : x(v.x), y(v.y), z(v.z) {}
  constexpr operator uint3() const { return {x, y, z}; }
};
