// Chooses the kernel for a problem and splits its sums: pure functions of the problem.
#pragma once

#include <cstdint>
#include <string_view>

#include "common_src/problem.h"

namespace convgrad::cuda {

enum class Kernel : int8_t { kAuto, kReference, kTiled, kGrouped, kGemm, kFewChannels, kWgmma };
inline constexpr Kernel kKernels[] = {Kernel::kReference, Kernel::kTiled,       Kernel::kGrouped,
                                      Kernel::kGemm,      Kernel::kFewChannels, Kernel::kWgmma};
const char* kernel_name(Kernel);

// Returns the kernel of this name, kAuto for "auto". Throws std::invalid_argument.
Kernel kernel_named(std::string_view name);

// What a call asks for: a kernel, and whether f32 may be multiplied as TF32 if the kernel can.
struct Request {
  Kernel kernel = Kernel::kAuto;
  bool tf32 = false;
};

// The major compute capabilities between which the plan distinguishes: 7 is before asynchronous copies, 8 has
// them, 9 has TMA and wgmma. Later devices lack wgmma and are planned as 8.
inline constexpr int kCapabilities[] = {7, 8, 9};

// The kernel that serves a call, and the reason in words.
struct Plan {
  Kernel kernel;
  const char* reason;
};
// Plans for a device of this major compute capability. Throws std::invalid_argument if the kernel asked for
// serves neither the problem nor the device.
Plan plan(Op, const ConvProblem&, Request, int capability);

// Returns a size that is enough for every kernel that the request may become, on any device. Throws if no
// device has such a kernel.
int64_t conv_workspace_bytes(Op, const ConvProblem&, Request);
int64_t bgrad_workspace_bytes(const BiasProblem&);
int64_t wgrad_bgrad_workspace_bytes(const ConvProblem&, Request);

}  // namespace convgrad::cuda
