// Which kernel serves a problem, and how its sums are split: pure functions of the problem.
#pragma once

#include <cstdint>
#include <string_view>

#include "common_src/problem.h"

namespace convgrad::cuda {

enum class Kernel : int8_t { kAuto, kReference, kTiled, kGrouped, kGemm, kFewChannels, kWgmma };
inline constexpr Kernel kKernels[] = {Kernel::kReference, Kernel::kTiled,       Kernel::kGrouped,
                                      Kernel::kGemm,      Kernel::kFewChannels, Kernel::kWgmma};
const char* kernel_name(Kernel);

// The kernel of this name, or kAuto for "auto". Throws std::invalid_argument.
Kernel kernel_named(std::string_view name);

// What a call asks for: a kernel, and whether f32 may be multiplied as TF32 where the kernel can.
struct Request {
  Kernel kernel = Kernel::kAuto;
  bool tf32 = false;
};

// The first numbers of the compute capabilities that the plan tells apart: before asynchronous copies, with
// them, and with TMA and wgmma, which later devices do not have. Theirs is taken for 8.
inline constexpr int kCapabilities[] = {7, 8, 9};

// The kernel that serves a call, and why in words.
struct Plan {
  Kernel kernel;
  const char* reason;
};
// On a device of this compute capability's first number. Throws std::invalid_argument where the kernel asked
// for does not serve the problem or the device.
Plan plan(Op, const ConvProblem&, Request, int capability);

// Enough for whichever kernel the request stands for, on any device. Throws where no device has one.
int64_t conv_workspace_bytes(Op, const ConvProblem&, Request);
int64_t bgrad_workspace_bytes(const BiasProblem&);
int64_t wgrad_bgrad_workspace_bytes(const ConvProblem&, Request);

}  // namespace convgrad::cuda
