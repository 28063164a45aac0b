// Chooses the kernel for a problem and splits sums into partial ones: pure functions of the problem.
#pragma once

#include <cstdint>
#include <string_view>

#include "common_src/problem.h"
#include "cpu_src/isa.h"

namespace convgrad::cpu {

enum class Kernel { kAuto, kReference, kTiled, kWinograd, kDot, kGrouped, kDepthwise, kPlanar, kPairs };
inline constexpr Kernel kKernels[] = {Kernel::kReference, Kernel::kTiled,   Kernel::kWinograd,
                                      Kernel::kDot,       Kernel::kGrouped, Kernel::kDepthwise,
                                      Kernel::kPlanar,    Kernel::kPairs};
const char* kernel_name(Kernel);

// What a call asks for: a kernel, the instruction set that its microkernels run on, and whether its precision
// is below HIGHEST. Only then the plan may choose Winograd's sums, which are not added as the formula stands.
struct Request {
  Kernel kernel = Kernel::kAuto;
  Isa isa = Isa::kPlain;
  bool below_highest = false;
};

// Parses "auto" or a kernel's name, followed by an instruction set if it is not to be the machine's widest,
// as in "tiled.avx2". Throws std::invalid_argument.
Request request_named(std::string_view name);

// The same for pooling and bgrad, which also accept "vector": it is the meaning of every name except
// "reference".
Request pool_request_named(std::string_view name);

// The kernel that serves a call, and the reason in words.
struct Plan {
  Kernel kernel;
  const char* reason;
};
// Throws std::invalid_argument if the kernel asked for does not serve the op or the problem.
Plan plan(Op, const ConvProblem&, Request);

// Returns a size that is the same for every instruction set. For fprop and dgrad it depends on the filter and
// the steps alone, because the batch may be symbolic when a program is traced.
int64_t conv_workspace_bytes(Op, const ConvProblem&, Request);

// Return the rows of dy that one bgrad task sums, and the number of such tasks.
int64_t bgrad_rows_per_task(const BiasProblem&);
int64_t bgrad_tasks(const BiasProblem&);
int64_t bgrad_workspace_bytes(const BiasProblem&);

// Returns the input channels of one filter tap that one task of the reference wgrad sums over all positions.
int64_t wgrad_channels_per_task(const ConvProblem&);

}  // namespace convgrad::cpu
