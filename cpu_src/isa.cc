#include "cpu_src/isa.h"

#if defined(__x86_64__)
#include <cpuid.h>
#endif

#include <cstdlib>
#include <initializer_list>
#include <stdexcept>

namespace convgrad::cpu {
#if defined(__x86_64__)
namespace {

constexpr unsigned bits(std::initializer_list<int> numbers) {
  unsigned mask = 0;
  for (const int number : numbers) mask |= 1u << number;
  return mask;
}

// What the compiler may use, by the bits of CPUID's answers and of XCR0, the registers that the system saves.
// -march=x86-64-v3 means FMA, MOVBE, XSAVE, AVX, F16C; BMI, AVX2, BMI2; LZCNT. -v4 adds AVX512F, DQ, CD, BW,
// VL.
constexpr unsigned kLeaf1C = bits({12, 22, 27, 28, 29}), kLeaf7B = bits({3, 5, 8}), kExtendedC = bits({5});
constexpr unsigned kLeaf7BOfV4 = bits({16, 17, 28, 30, 31});
constexpr unsigned kLeaf7Part1AOfBf16 = bits({5});
constexpr unsigned kSavedYmm = bits({1, 2}), kSavedZmm = bits({1, 2, 5, 6, 7});

constexpr bool has(unsigned word, unsigned mask) { return (word & mask) == mask; }

// Asks the processor itself: each compiler's __builtin_cpu_supports() knows other names (clang 14: none of
// F16C, LZCNT, MOVBE), and the one in zig's runtime library always says no.
Isa widest_isa() {
  unsigned a, b, c, d;
  if (!__get_cpuid(1, &a, &b, &c, &d) || !has(c, kLeaf1C)) return Isa::kPlain;
  if (!__get_cpuid(0x80000001, &a, &b, &c, &d) || !has(c, kExtendedC)) return Isa::kPlain;
  if (!__get_cpuid_count(7, 0, &a, &b, &c, &d) || !has(b, kLeaf7B)) return Isa::kPlain;
  unsigned saved, high;
  __asm__("xgetbv" : "=a"(saved), "=d"(high) : "c"(0));
  if (!has(saved, kSavedYmm)) return Isa::kPlain;
  if (!has(b, kLeaf7BOfV4) || !has(saved, kSavedZmm)) return Isa::kAvx2;
  const unsigned last_part = a;  // of leaf 7
  if (last_part < 1 || !__get_cpuid_count(7, 1, &a, &b, &c, &d)) return Isa::kAvx512;
  return has(a, kLeaf7Part1AOfBf16) ? Isa::kAvx512Bf16 : Isa::kAvx512;
}

}  // namespace
#endif

const std::vector<Isa>& supported_isas() {
  static const std::vector<Isa> isas = [] {
    std::vector<Isa> found = {Isa::kPlain};
#if defined(__x86_64__)
    const Isa widest = widest_isa();
    for (const Isa isa : {Isa::kAvx2, Isa::kAvx512, Isa::kAvx512Bf16})
      if (isa <= widest) found.push_back(isa);
#endif
    return found;
  }();
  return isas;
}

const char* isa_name(Isa isa) {
  switch (isa) {
    case Isa::kAvx512Bf16:
      return "avx512_bf16";
    case Isa::kAvx512:
      return "avx512";
    case Isa::kAvx2:
      return "avx2";
    case Isa::kPlain:
      break;
  }
  return "plain";
}

Isa isa_named(std::string_view name) {
  if (name.empty()) {
    static const char* const chosen = std::getenv("JAX_CONVGRAD_CPU_ISA");
    if (chosen == nullptr || *chosen == 0) return supported_isas().back();
    name = chosen;
  }
  std::string known;
  for (const Isa isa : supported_isas()) {
    if (name == isa_name(isa)) return isa;
    known += std::string(known.empty() ? "" : ", ") + isa_name(isa);
  }
  throw std::invalid_argument("jax_convgrad: instruction set \"" + std::string(name) +
                              "\" is unknown or not supported by this machine, which has " + known);
}

}  // namespace convgrad::cpu
