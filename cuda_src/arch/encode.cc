// Encodes tensor maps with the driver's functions. They are looked up at run time, so that the module loads
// on machines without a driver.
#include "cuda_src/arch/encode.h"

#include <cuda.h>

#include <atomic>
#include <cstring>

namespace convgrad::cuda {
namespace {

template <typename Function>
Function* driver_function(const char* name) {
  void* found = nullptr;
  cudaDriverEntryPointQueryResult status = cudaDriverEntryPointSymbolNotFound;
#if CUDART_VERSION >= 12050
  const cudaError_t error = cudaGetDriverEntryPointByVersion(name, &found, 12000, cudaEnableDefault, &status);
#else
  const cudaError_t error = cudaGetDriverEntryPoint(name, &found, cudaEnableDefault, &status);
#endif
  return error == cudaSuccess && status == cudaDriverEntryPointSuccess ? reinterpret_cast<Function*>(found)
                                                                       : nullptr;
}

CUtensorMapDataType type_of(DType dtype) {
  switch (dtype) {
    case DType::kBF16:
      return CU_TENSOR_MAP_DATA_TYPE_BFLOAT16;
    case DType::kF16:
      return CU_TENSOR_MAP_DATA_TYPE_FLOAT16;
    case DType::kF64:
      return CU_TENSOR_MAP_DATA_TYPE_FLOAT64;
    case DType::kF32:
      break;
  }
  return CU_TENSOR_MAP_DATA_TYPE_FLOAT32;
}

// What both kinds of map share, in the driver's types.
struct Array {
  cuuint32_t rank;
  void* base;
  cuuint64_t size[kMaxTensorRank], stride[kMaxTensorRank];  // strides begin with the second dimension

  explicit Array(const TensorArray& array)
      : rank(static_cast<cuuint32_t>(array.rank)), base(const_cast<void*>(array.base)), size(), stride() {
    for (int d = 0; d < array.rank && d < kMaxTensorRank; ++d) {
      size[d] = static_cast<cuuint64_t>(array.size[d]);
      if (d > 0) stride[d - 1] = static_cast<cuuint64_t>(array.stride_bytes[d]);
    }
  }
};

cudaError_t finish(CUresult result, const CUtensorMap& encoded, TensorMap* map) {
  static_assert(sizeof(TensorMap) == sizeof(CUtensorMap));
  if (result != CUDA_SUCCESS) return cudaErrorInvalidValue;
  std::memcpy(map, &encoded, sizeof *map);
  return cudaSuccess;
}

// Keeps a function once found, and looks again while it is not.
template <typename Function>
Function* cached(std::atomic<Function*>& found, const char* name) {
  Function* function = found.load();
  if (function == nullptr) found.store(function = driver_function<Function>(name));
  return function;
}

auto* encode_tiled() {
  static std::atomic<decltype(cuTensorMapEncodeTiled)*> found{nullptr};
  return cached(found, "cuTensorMapEncodeTiled");
}
auto* encode_im2col() {
  static std::atomic<decltype(cuTensorMapEncodeIm2col)*> found{nullptr};
  return cached(found, "cuTensorMapEncodeIm2col");
}

}  // namespace

bool tensor_maps_available() { return encode_tiled() != nullptr && encode_im2col() != nullptr; }

cudaError_t encode(const TiledMap& tiled, TensorMap* map) {
  auto* const function = encode_tiled();
  if (function == nullptr) return cudaErrorNotSupported;
  const Array array(tiled.array);
  cuuint32_t box[kMaxTensorRank] = {}, step[kMaxTensorRank] = {};
  for (int d = 0; d < tiled.array.rank && d < kMaxTensorRank; ++d) {
    box[d] = static_cast<cuuint32_t>(tiled.box[d]);
    step[d] = 1;
  }
  CUtensorMap encoded;
  return finish(function(&encoded, type_of(tiled.array.dtype), array.rank, array.base, array.size,
                         array.stride, box, step, CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B,
                         CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE),
                encoded, map);
}

cudaError_t encode(const Im2colMap& im2col, TensorMap* map) {
  auto* const function = encode_im2col();
  if (function == nullptr) return cudaErrorNotSupported;
  const Array array(im2col.array);
  cuuint32_t step[kMaxTensorRank] = {1, 1, 1, 1, 1};
  for (int a = 0; a < im2col.array.rank - 2 && a < 3; ++a)
    step[1 + a] = static_cast<cuuint32_t>(im2col.step[a]);
  CUtensorMap encoded;
  return finish(function(&encoded, type_of(im2col.array.dtype), array.rank, array.base, array.size,
                         array.stride, im2col.lower, im2col.upper, static_cast<cuuint32_t>(im2col.channels),
                         static_cast<cuuint32_t>(im2col.pixels), step, CU_TENSOR_MAP_INTERLEAVE_NONE,
                         CU_TENSOR_MAP_SWIZZLE_128B, CU_TENSOR_MAP_L2_PROMOTION_L2_256B,
                         CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE),
                encoded, map);
}

}  // namespace convgrad::cuda
