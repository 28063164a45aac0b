// db[c] = sum over rows of dy[row,c], in two sums: a thread adds one channel over one part of the rows, then
// the parts are added in order. Neighbouring threads have neighbouring channels, so a warp reads whole rows.
#include "common_src/dispatch.h"
#include "cuda_src/arch/launch.cuh"
#include "cuda_src/bias/plan.h"
#include "cuda_src/conv_kernels.h"
#include "cuda_src/pool/kernels.h"

namespace convgrad::cuda {
namespace {

// sums[part,c]; `Result` is Stored where one part is all there is.
template <typename Stored, typename Result>
__global__ void bgrad_kernel(BiasProblem p, Split split, const Stored* dy, Result* sums) {
  const int64_t count = split.parts * p.channels;
  for (int64_t at = first_element(); at < count; at += element_step()) {
    const int64_t c = at % p.channels;
    const int64_t first = at / p.channels * split.length;
    const int64_t end = first + split.length < p.rows ? first + split.length : p.rows;
    Sum<Stored> sum = 0;
    for (int64_t row = first; row < end; ++row) sum += widen(dy[row * p.channels + c]);
    sums[at] = narrow<Result>(sum);
  }
}

}  // namespace

cudaError_t reference_bgrad(const BiasProblem& p, const void* dy, void* db, void* workspace,
                            cudaStream_t stream) {
  const Split split = reference_bgrad_split(p);
  const int64_t count = split.parts * p.channels;
  const bool one_part = split.parts == 1;
  const cudaError_t error = dispatch(p.dtype, [&](auto tag) {
    using Stored = typename decltype(tag)::type;
    const auto* rows = static_cast<const Stored*>(dy);
    if (one_part)
      return launch_elements(bgrad_kernel<Stored, Stored>, count, stream, p, split, rows,
                             static_cast<Stored*>(db));
    return launch_elements(bgrad_kernel<Stored, Sum<Stored>>, count, stream, p, split, rows,
                           static_cast<Sum<Stored>*>(workspace));
  });
  if (error != cudaSuccess || one_part) return error;
  return add_parts(p.dtype, workspace, db, split.parts, p.channels, stream);
}

}  // namespace convgrad::cuda
