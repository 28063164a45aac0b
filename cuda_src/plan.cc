// The plan: which kernel a problem gets and how its long sums are split, with the reason for each number.
#include "cuda_src/plan.h"

#include <algorithm>

#include "cuda_src/split.h"
#include "cuda_src/tile_shape.h"

namespace convgrad::cuda {
namespace {

// One group of an op as a matrix product: result[rows, columns], each a sum over depth.
struct Product {
  int64_t rows, columns, depth;
};

Product product_of(const ConvProblem& p, ConvOp op) {
  switch (op) {
    case ConvOp::kFprop:
      return {p.batch * p.outputs(), p.group_out(), p.taps() * p.group_in()};
    case ConvOp::kDgrad:
      return {p.batch * p.inputs(), p.group_in(), p.taps() * p.group_out()};
    case ConvOp::kWgrad:
      return {p.taps() * p.group_in(), p.group_out(), p.batch * p.outputs()};
  }
  return {0, 0, 0};
}

// How many multiply-adds the tiled kernel makes for one that the problem asks for: what its tiles reach
// beyond the edges, and the zeros it multiplies where a tap is tied to nothing because the inputs are dilated
// (for dgrad: because of the stride).
double tiled_waste(const ConvProblem& p, ConvOp op) {
  const Product product = product_of(p, op);
  if (product.rows == 0 || product.columns == 0 || product.depth == 0) return 1e30;
  const auto padded = [](int64_t extent, int64_t tile) {
    return static_cast<double>(tiles_over(extent, tile) * tile) / static_cast<double>(extent);
  };
  double waste = padded(product.rows, kTileRows) * padded(product.columns, kTileColumns) *
                 padded(product.depth, kTileDepth);
  for (const Axis& axis : p.axis) {
    if (op == ConvOp::kFprop) waste *= static_cast<double>(axis.input_dilation);
    if (op == ConvOp::kDgrad) waste *= static_cast<double>(axis.stride);
  }
  return waste;
}

int64_t bytes_of_sum(DType dtype) { return dtype == DType::kF64 ? 8 : 4; }

}  // namespace

ConvKernel choose_kernel(const ConvProblem& p, ConvOp op, ConvKernel requested) {
  if (requested != ConvKernel::kAuto) return requested;
  // A tiled multiply-add costs about an eighth of a direct one, which reads both its factors from memory.
  // In wgrad a direct thread goes over the whole batch alone, and there are only as many as filter elements;
  // the tiled kernel splits that sum, so it may waste more.
  const double affordable = op == ConvOp::kWgrad ? 64 : 8;
  return tiled_waste(p, op) <= affordable ? ConvKernel::kTiled : ConvKernel::kDirect;
}

Split wgrad_split(const ConvProblem& p) {
  // Enough blocks to fill a large device a few times over, but no part so short that writing and adding its
  // partials would cost as much as the part itself.
  constexpr int64_t kBlocks = 1024, kShortest = 256;
  const Product product = product_of(p, ConvOp::kWgrad);
  const int64_t tiles =
      tiles_over(product.rows, kTileRows) * tiles_over(product.columns, kTileColumns) * p.groups;
  const int64_t wanted = kBlocks / std::max<int64_t>(tiles, 1);
  const int64_t parts = std::max<int64_t>(std::min(wanted, product.depth / kShortest), 1);
  const int64_t length = tiles_over(tiles_over(product.depth, parts), kTileDepth) * kTileDepth;
  return {parts, length};
}

int64_t wgrad_workspace_bytes(const ConvProblem& p, ConvKernel requested) {
  if (choose_kernel(p, ConvOp::kWgrad, requested) != ConvKernel::kTiled) return 0;
  const int64_t parts = wgrad_split(p).parts;
  return parts == 1 ? 0 : parts * p.taps() * p.group_in() * p.out_channels * bytes_of_sum(p.dtype);
}

}  // namespace convgrad::cuda
