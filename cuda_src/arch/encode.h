// The driver's encoders of tensor maps (tensor_map.h).
#pragma once

#include <cuda_runtime.h>

#include "cuda_src/arch/tensor_map.h"

namespace convgrad::cuda {

// Reports whether the driver has the encoders.
bool tensor_maps_available();

// Return cudaErrorInvalidValue for a map that the hardware cannot hold, and cudaErrorNotSupported if the
// driver cannot encode tensor maps.
cudaError_t encode(const TiledMap&, TensorMap*);
cudaError_t encode(const Im2colMap&, TensorMap*);

}  // namespace convgrad::cuda
