#include "cpu_src/isa.h"

#if defined(__x86_64__)
#include <cpuid.h>
#endif

#include <cstdlib>
#include <stdexcept>

namespace convgrad::cpu {
#if defined(__x86_64__)
namespace {

// Asks the processor itself, since __builtin_cpu_supports() of clang 14 knows none of the three.
bool has_f16c_lzcnt_movbe() {
  unsigned a, b, c, d, extended_c = 0;
  if (!__get_cpuid(1, &a, &b, &c, &d)) return false;
  const unsigned leaf1_c = c;
  if (__get_cpuid(0x80000001, &a, &b, &c, &d)) extended_c = c;
  constexpr unsigned kMovbe = 1u << 22, kF16c = 1u << 29, kLzcnt = 1u << 5;
  return (leaf1_c & kMovbe) && (leaf1_c & kF16c) && (extended_c & kLzcnt);
}

}  // namespace
#endif

const std::vector<Isa>& supported_isas() {
  static const std::vector<Isa> isas = [] {
    std::vector<Isa> found = {Isa::kPlain};
#if defined(__x86_64__)
    // -march=x86-64-v3 lets the compiler use these; -v4 adds those below.
    const bool v3 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
                    __builtin_cpu_supports("bmi") && __builtin_cpu_supports("bmi2") && has_f16c_lzcnt_movbe();
    if (v3) found.push_back(Isa::kAvx2);
    if (v3 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512cd") && __builtin_cpu_supports("avx512dq") &&
        __builtin_cpu_supports("avx512vl"))
      found.push_back(Isa::kAvx512);
#endif
    return found;
  }();
  return isas;
}

const char* isa_name(Isa isa) {
  return isa == Isa::kAvx512 ? "avx512" : isa == Isa::kAvx2 ? "avx2" : "plain";
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
