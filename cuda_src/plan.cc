// Chooses the kernel for a problem and splits its long sums, with the reason for each number.
#include "cuda_src/plan.h"

#include <algorithm>
#include <iterator>
#include <stdexcept>
#include <string>
#include <string_view>

#include "common_src/integers.h"
#include "common_src/phase.h"
#include "cuda_src/block/choice.h"
#include "cuda_src/few_channels/plan.h"
#include "cuda_src/flatten.h"
#include "cuda_src/grouped/plan.h"
#include "cuda_src/split.h"
#include "cuda_src/tiled/tile_shape.h"
#include "cuda_src/wgmma/plan.h"

namespace convgrad::cuda {
namespace {

constexpr char kAskedFor[] = "asked for";

// One group of an op as matrix products, one per phase: result[rows, columns], each a sum over depth. Rows
// and depth are those of the largest phase.
struct Product {
  int64_t phases, rows, columns, depth;
};

Product product_of(Op op, const ConvProblem& p) {
  if (op == Op::kDgrad) return product_of(Op::kFprop, p.transpose());
  if (op == Op::kFprop) {
    const Phases phases(p, ResultIs::kOutputs);
    return {phases.count(), p.batch * phases.most_outputs(), p.group_out(),
            phases.most_taps() * p.group_in()};
  }
  const Phases phases(p, ResultIs::kTaps);
  return {phases.count(), phases.most_taps() * p.group_in(), p.group_out(), filter_depth(p)};
}

// Returns the ratio of the tiled kernel's multiply-adds to the necessary ones. The difference is what tiles
// compute beyond the edges.
double tiled_waste(Op op, const ConvProblem& p) {
  const Product product = product_of(op, p);
  if (product.rows == 0 || product.columns == 0 || product.depth == 0) return 1e30;
  const auto padded = [](int64_t extent, int64_t tile) {
    return static_cast<double>(tiles_over(extent, tile) * tile) / static_cast<double>(extent);
  };
  return padded(product.rows, kTileRows) * padded(product.columns, kTileColumns) *
         padded(product.depth, kTileDepth);
}

// Groups of more than 8 channels are large enough for a tiled matrix product.
bool takes_grouped(const ConvProblem& p) {
  return grouped_serves(p) && p.group_in() <= 8 && p.group_out() <= 8;
}

// Returns the ratio of wgmma's multiply-adds to the necessary ones: channels are padded to whole slices and
// tiles, and wgrad's chunks of rows to pairs. Independent of the batch, because the workspace's size is asked
// for without one.
double wgmma_waste(Op op, const ConvProblem& p) {
  constexpr int kColumns = 64;
  const auto padded = [](int64_t extent, int64_t tile) {
    return static_cast<double>(tiles_over(extent, tile) * tile) / static_cast<double>(extent);
  };
  if (op == Op::kWgrad)
    return padded(p.group_in(), 64) * padded(wgmma_filter_chunks(p), 2) * padded(p.group_out(), kColumns);
  const ConvProblem q = op == Op::kDgrad ? p.transpose() : p;
  return padded(q.group_in(), wgmma_depth(q.dtype)) * padded(q.group_out(), kColumns);
}

// wgmma is estimated to be twice as fast as mma.sync, so it may waste less than half of its multiply-adds.
bool takes_wgmma(Op op, const ConvProblem& p) { return wgmma_waste(op, p) < 2; }

// For dgrad the few channels are those of the output. The dgrad of a first layer, whose result has few
// channels, does not suit this kernel: so few channels do not fill a chunk.
bool is_of_few_channels(Op op, const ConvProblem& p) {
  return few_channels_serves(op == Op::kDgrad ? p.transpose() : p, op == Op::kWgrad);
}

// The kernel copies every input of a tile's patch, also those between strided windows. It is chosen if the
// patch is at most twice what is multiplied and written.
bool takes_few_channels(Op op, const ConvProblem& p) {
  if (!is_of_few_channels(op, p) || is_mostly_padding(p)) return false;
  ConvProblem q = op == Op::kDgrad ? p.transpose() : p;
  q.batch = 1;  // independent of the batch, as in wgmma_waste()
  const FewChannelsPlan plan = few_channels_plan(q, op == Op::kWgrad);
  const int64_t positions = few_channels_positions(q.dtype, op == Op::kWgrad);
  return plan.patch_numbers() <= 2 * positions * (plan.depth + q.out_channels);
}

// wgrad needs partial sums; fprop and dgrad need a rounded filter for wgmma in TF32.
int64_t workspace_bytes(Op op, const ConvProblem& p, Kernel kernel) {
  const int64_t filter = p.taps() * p.group_in() * p.out_channels;
  if (op != Op::kWgrad)
    return kernel == Kernel::kWgmma && p.dtype == DType::kF32 ? filter * bytes_of(p.dtype) : 0;
  int64_t parts = 1;
  if (kernel == Kernel::kGrouped) parts = grouped_filter_split(p).parts;
  if (kernel == Kernel::kWgmma) parts = wgmma_filter_split(p).parts;
  if (kernel == Kernel::kGemm) parts = gemm_wgrad_split(p).parts;
  if (kernel == Kernel::kFewChannels) parts = few_channels_filter_split(p).parts;
  if (kernel == Kernel::kTiled) parts = wgrad_split(p).parts;
  return parts == 1 ? 0 : parts * filter * bytes_of_sum(p.dtype);
}

}  // namespace

const char* kernel_name(Kernel kernel) {
  switch (kernel) {
    case Kernel::kReference:
      return "reference";
    case Kernel::kTiled:
      return "tiled";
    case Kernel::kGrouped:
      return "grouped";
    case Kernel::kGemm:
      return "gemm";
    case Kernel::kFewChannels:
      return "few_channels";
    case Kernel::kWgmma:
      return "wgmma";
    case Kernel::kAuto:
      break;
  }
  return "auto";
}

Kernel kernel_named(std::string_view name) {
  if (name == "auto") return Kernel::kAuto;
  std::string known = "\"auto\"";
  for (const Kernel each : kKernels) {
    if (name == kernel_name(each)) return each;
    known += std::string(", \"") + kernel_name(each) + "\"";
  }
  throw std::invalid_argument("jax_convgrad: kernel is \"" + std::string(name) + "\", CUDA has " + known);
}

Plan plan(Op op, const ConvProblem& problem, Request request, int capability) {
  const ConvProblem p = flatten(problem);
  Kernel requested = request.kernel;
  // Compute capability 8.0 brought cp.async, and tensor cores for every dtype.
  const bool gemm = capability >= 8 && gemm_serves(p) && gemm_serves(p.transpose());
  if (requested == Kernel::kGemm && !gemm)
    throw std::invalid_argument(
        "jax_convgrad: the kernel \"gemm\" serves devices of compute capability 8.0 and up, and positions, "
        "steps and a filter's rows below 2^29");
  if (requested == Kernel::kGrouped && !grouped_serves(p))
    throw std::invalid_argument(std::string("jax_convgrad: the kernel \"grouped\" serves ") + kGroupedServes);
  const bool wgmma = capability == 9 && wgmma_serves(op, p, request.tf32);
  if (requested == Kernel::kWgmma && !wgmma)
    throw std::invalid_argument(std::string("jax_convgrad: the kernel \"wgmma\" serves ") + kWgmmaServes);
  const bool few_channels = capability >= 8 && is_of_few_channels(op, p);
  if (requested == Kernel::kFewChannels) {
    if (few_channels) return {requested, kAskedFor};
    // For a layer's dgrad this name means whichever kernel "auto" takes, if the kernel serves its other ops.
    if (capability < 8 || op != Op::kDgrad || !few_channels_serves(p, false))
      throw std::invalid_argument(
          std::string("jax_convgrad: the kernel \"few_channels\" serves devices of compute capability 8.0 ") +
          "and up, and " + kFewChannelsServes);
    requested = Kernel::kAuto;
  }
  if (requested != Kernel::kAuto) return {requested, kAskedFor};
  // So thin a product waits for memory. This kernel reads x and writes y (wgrad: reads dy) once, in 16-byte
  // chunks, while gemm would access single numbers.
  if (capability >= 8 && takes_few_channels(op, p))
    return {Kernel::kFewChannels, "so few channels that memory is what a product waits for"};
  if (takes_grouped(p)) return {Kernel::kGrouped, "several groups of at most 8 channels"};
  if (wgmma && takes_wgmma(op, p)) return {Kernel::kWgmma, "channels that fill wgmma's tiles, copied by TMA"};
  if (gemm) return {Kernel::kGemm, "a matrix product, in a multistage pipeline of asynchronous copies"};
  // A tiled multiply-add costs about an eighth of a reference one, which reads both factors from memory. In
  // wgrad a reference thread goes over the whole batch alone, and there are only as many threads as filter
  // elements; the tiled kernel splits that sum, so it may waste more.
  const double affordable = op == Op::kWgrad ? 64 : 8;
  if (tiled_waste(op, p) <= affordable)
    return {Kernel::kTiled, "a matrix product, for devices or sizes that the faster ones do not serve"};
  return {Kernel::kReference, "too few rows or columns for tiles"};
}

bool filter_has_phases(const ConvProblem& p) {
  return is_mostly_padding(p) ||
         std::any_of(p.axis, p.axis + kAxes, [](const Axis& axis) { return axis.input_dilation != 1; });
}

int64_t filter_depth(const ConvProblem& p) {
  if (!filter_has_phases(p)) return p.batch * p.outputs();
  int64_t positions = p.batch;
  for (const Axis& axis : p.axis) {
    const AxisPhases phases(axis, ResultIs::kTaps);
    const int64_t span = (axis.input - 1) * axis.input_dilation;
    positions *= std::min(phases.most_outputs(), span / (axis.stride * phases.o_step()) + 1);
  }
  return positions;
}

int64_t wgrad_parts(const ConvProblem& p, int64_t wanted, int64_t most) {
  const int64_t partial_bytes = p.taps() * p.group_in() * p.out_channels * bytes_of_sum(p.dtype);
  const int64_t activations =
      p.batch * (p.inputs() * p.in_channels + p.outputs() * p.out_channels) * bytes_of(p.dtype);
  const int64_t affordable = activations / 20 / std::max<int64_t>(partial_bytes, 1);
  return std::max<int64_t>(std::min({wanted, most, affordable}), 1);
}

Split wgrad_split(const ConvProblem& p) {
  // Enough blocks to fill a large device a few times over, but no part so short that its partial sums cost as
  // much to write and add as the part itself.
  constexpr int64_t kBlocks = 1024, kShortest = 256;
  const Product product = product_of(Op::kWgrad, p);
  const int64_t tiles = product.phases * tiles_over(product.rows, kTileRows) *
                        tiles_over(product.columns, kTileColumns) * p.groups;
  const int64_t wanted = kBlocks / std::max<int64_t>(tiles, 1);
  const int64_t parts = std::max<int64_t>(std::min(wanted, product.depth / kShortest), 1);
  const int64_t length = tiles_over(tiles_over(product.depth, parts), kTileDepth) * kTileDepth;
  return {parts, length};
}

Split gemm_wgrad_split(const ConvProblem& p) {
  // About four thousand terms per sum, whose rounding error stays small, but enough parts to give a large
  // device a few blocks per multiprocessor.
  constexpr int64_t kTerms = 4096, kBlocks = 512, kShortest = 256;
  const Product product = product_of(Op::kWgrad, p);
  const int64_t tiles =
      product.phases * tiles_over(product.rows, 64) * tiles_over(product.columns, 64) * p.groups;
  const int64_t wanted = std::max(tiles_over(product.depth, kTerms), kBlocks / std::max<int64_t>(tiles, 1));
  const int64_t parts = wgrad_parts(p, wanted, product.depth / kShortest);
  constexpr int64_t kSlice = 32;  // a whole number of slices for every dtype
  return {parts, tiles_over(tiles_over(product.depth, parts), kSlice) * kSlice};
}

int64_t conv_workspace_bytes(Op op, const ConvProblem& problem, Request request) {
  const ConvProblem p = flatten(problem);
  if (request.kernel != Kernel::kAuto)
    return workspace_bytes(op, p, plan(op, p, request, kCapabilities[std::size(kCapabilities) - 1]).kernel);
  int64_t bytes = 0;
  for (const int capability : kCapabilities)
    bytes = std::max(bytes, workspace_bytes(op, p, plan(op, p, request, capability).kernel));
  return bytes;
}

int64_t wgrad_bgrad_workspace_bytes(const ConvProblem& p, Request request) {
  const int64_t filter = p.taps() * p.group_in();
  const int64_t partials = conv_workspace_bytes(Op::kWgrad, p, request);
  // Each part's db follows its dw, as if the filter had one row more; or bgrad runs afterwards in its own
  // workspace.
  const int64_t rows = filter == 0 ? 0 : partials / filter * (filter + 1);
  return std::max(rows, bgrad_workspace_bytes(bias_problem(p)));
}

}  // namespace convgrad::cuda
