// Which kernel serves a problem, and how sums are split into partial ones: pure functions of the problem.
#pragma once

#include <cstdint>
#include <string_view>

#include "common_src/problem.h"
#include "cpu_src/isa.h"

namespace convgrad::cpu {

enum class Kernel { kAuto, kReference, kTiled, kDot, kGrouped, kPlanar, kPairs };
inline constexpr Kernel kKernels[] = {Kernel::kReference, Kernel::kTiled,  Kernel::kDot,
                                      Kernel::kGrouped,   Kernel::kPlanar, Kernel::kPairs};
const char* kernel_name(Kernel);

// What a call asks for: a kernel, and the instruction set that its microkernels run on.
struct Request {
  Kernel kernel = Kernel::kAuto;
  Isa isa = Isa::kPlain;
};

// "auto" or a kernel's name, and where another than the machine's widest is wanted the instruction set
// behind it, as in "tiled.avx2". Throws std::invalid_argument.
Request request_named(std::string_view name);

// The same for pooling and bgrad, which have "vector" too: every name but "reference" stands for it.
Request pool_request_named(std::string_view name);

// The kernel that serves a call, and why in words.
struct Plan {
  Kernel kernel;
  const char* reason;
};
// Throws std::invalid_argument where the kernel asked for does not serve the op or the problem.
Plan plan(Op, const ConvProblem&, Request);

// The same on every instruction set. Of fprop and dgrad the filter's alone, as the batch may be a symbol when
// a program is traced.
int64_t conv_workspace_bytes(Op, const ConvProblem&, Request);

// Rows of dy that one bgrad task sums, and how many such tasks there are.
int64_t bgrad_rows_per_task(const BiasProblem&);
int64_t bgrad_tasks(const BiasProblem&);
int64_t bgrad_workspace_bytes(const BiasProblem&);

// Input channels of one filter tap that one task of the reference wgrad sums over all positions.
int64_t wgrad_channels_per_task(const ConvProblem&);

}  // namespace convgrad::cpu
