// Which instruction set the microkernels run on.
//
// Every file of cpu_src/microkernels/ is compiled once for each instruction set, in a namespace of its name;
// all else is compiled for the oldest machine. Which of them a call takes is found out at run time, so
// that one build serves every machine.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace convgrad::cpu {

enum class Isa { kPlain, kAvx2, kAvx512 };

// The instruction sets that this machine has and this build has kernels for, the widest last. "plain" is
// what the compiler may use everywhere: SSE2 on x86-64, NEON on aarch64.
const std::vector<Isa>& supported_isas();
const char* isa_name(Isa);

// By name, or the widest where the name is empty: then the environment variable JAX_CONVGRAD_CPU_ISA may name
// another. Throws std::invalid_argument for one that is unknown or not supported here.
Isa isa_named(std::string_view name);

// Declares a function once for each instruction set that is compiled.
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
  ((isa) == Isa::kAvx512 ? avx512::call : (isa) == Isa::kAvx2 ? avx2::call : plain::call)
#else
#define CONVGRAD_PER_ISA(declaration) \
  namespace plain {                   \
  declaration;                        \
  }
#define CONVGRAD_FOR_ISA(isa, call) (static_cast<void>(isa), plain::call)
#endif

}  // namespace convgrad::cpu
