// Chooses the instruction set for the microkernels at run time, so that one build serves every machine.
//
// Every file of cpu_src/microkernels/ is compiled once per instruction set, in a namespace of its name;
// everything else is compiled for the oldest machine. The exception is AVX512-BF16, the dot products of bf16
// pairs: only what uses them, or rounds to bf16, is compiled for it (bf16_dots.h); everything else runs on
// AVX-512.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "common_src/problem.h"

namespace convgrad::cpu {

enum class Isa { kPlain, kAvx2, kAvx512, kAvx512Bf16 };

// Returns the instruction sets that this machine has and this build has kernels for, the widest last. "plain"
// is what the compiler may use everywhere: SSE2 on x86-64, NEON on aarch64.
const std::vector<Isa>& supported_isas();
const char* isa_name(Isa);

// Returns the instruction set of this name. An empty name means the widest, or the one that the environment
// variable JAX_CONVGRAD_CPU_ISA names. Throws std::invalid_argument if it is unknown or not supported here.
Isa isa_named(std::string_view name);

// Returns the size of the type that sums of numbers of this dtype run in.
inline int64_t sum_bytes(DType dtype) { return dtype == DType::kF64 ? 8 : 4; }

// Returns the lanes of the widest vectors: what is a multiple of them suits every instruction set.
inline int64_t widest_lanes(DType dtype) { return 64 / sum_bytes(dtype); }

// Declares a function once per instruction set for which all microkernels are compiled.
#if defined(__x86_64__)
#define CONVGRAD_PER_ISA(declaration) \
  namespace plain {                   \
  declaration;                        \
  }                                   \
  namespace avx2 {                    \
  declaration;                        \
  }                                   \
  namespace avx512 {                  \
  declaration;                        \
  }
#define CONVGRAD_FOR_ISA(isa, call) \
  ((isa) >= Isa::kAvx512 ? avx512::call : (isa) == Isa::kAvx2 ? avx2::call : plain::call)
#else
#define CONVGRAD_PER_ISA(declaration) \
  namespace plain {                   \
  declaration;                        \
  }
#define CONVGRAD_FOR_ISA(isa, call) (static_cast<void>(isa), plain::call)
#endif

}  // namespace convgrad::cpu
