// The driver's encoders of tensor maps (tensor_map.h).
#pragma once

#include <cuda_runtime.h>

#include "cuda_src/arch/tensor_map.h"

namespace convgrad::cuda {

// Whether the driver has the encoders.
bool tensor_maps_available();

// cudaErrorInvalidValue for what the hardware cannot do, cudaErrorNotSupported where the driver does not know
// tensor maps.
cudaError_t encode(const TiledMap&, TensorMap*);
cudaError_t encode(const Im2colMap&, TensorMap*);

}  // namespace convgrad::cuda
