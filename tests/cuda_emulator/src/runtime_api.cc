#include "cuda_emulator/runtime_api.h"

#include <charconv>
#include <cstdlib>
#include <cstring>
#include <utility>

#include "error.h"

namespace cuda_emulator {
namespace {
thread_local cudaError_t last_error = cudaSuccess;
thread_local std::string failure_message = "unspecified launch failure";

// Read at each query, so that one process can be devices of several sizes. Returns 0 if the text is not a
// number of multiprocessors.
int multiprocessors() {
  const char* text = std::getenv("JAX_CONVGRAD_EMULATOR_MULTIPROCESSORS");
  if (!text) return 3;
  const char* end = text + std::strlen(text);
  int count = 0;
  auto [stopped, error] = std::from_chars(text, end, count);
  return error == std::errc() && stopped == end && count > 0 ? count : 0;
}
}  // namespace

cudaError_t remember(cudaError_t error) { return last_error = error; }

cudaError_t remember_failure(const std::string& message) {
  failure_message = message;
  return remember(cudaErrorLaunchFailure);
}

}  // namespace cuda_emulator

cudaError_t cudaGetLastError() { return std::exchange(cuda_emulator::last_error, cudaSuccess); }
cudaError_t cudaPeekAtLastError() { return cuda_emulator::last_error; }

const char* cudaGetErrorString(cudaError_t error) {
  switch (error) {
    case cudaSuccess:
      return "no error";
    case cudaErrorInvalidValue:
      return "invalid argument";
    case cudaErrorInvalidConfiguration:
      return "invalid configuration argument";
    case cudaErrorInvalidDeviceFunction:
      return "invalid device function";
    case cudaErrorLaunchFailure:
      return cuda_emulator::failure_message.c_str();
    case cudaErrorNotSupported:
      return "operation not supported";
  }
  return "unrecognized error code";
}

const char* cudaGetErrorName(cudaError_t error) {
  switch (error) {
    case cudaSuccess:
      return "cudaSuccess";
    case cudaErrorInvalidValue:
      return "cudaErrorInvalidValue";
    case cudaErrorInvalidConfiguration:
      return "cudaErrorInvalidConfiguration";
    case cudaErrorInvalidDeviceFunction:
      return "cudaErrorInvalidDeviceFunction";
    case cudaErrorLaunchFailure:
      return "cudaErrorLaunchFailure";
    case cudaErrorNotSupported:
      return "cudaErrorNotSupported";
  }
  return "unrecognized error code";
}

cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind, cudaStream_t) {
  if (bytes == 0) return cudaSuccess;
  if (!to || !from) return cuda_emulator::remember(cudaErrorInvalidValue);
  std::memcpy(to, from, bytes);
  return cudaSuccess;
}

cudaError_t cudaMemsetAsync(void* to, int byte, size_t bytes, cudaStream_t) {
  if (bytes == 0) return cudaSuccess;
  if (!to) return cuda_emulator::remember(cudaErrorInvalidValue);
  std::memset(to, byte, bytes);
  return cudaSuccess;
}

cudaError_t cudaGetDevice(int* device) {
  *device = 0;
  return cudaSuccess;
}

cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int device) {
  if (device != 0) return cuda_emulator::remember(cudaErrorInvalidValue);
  switch (attribute) {
    case cudaDevAttrMultiProcessorCount:
      *value = cuda_emulator::multiprocessors();
      return *value > 0 ? cudaSuccess : cuda_emulator::remember(cudaErrorInvalidValue);
    case cudaDevAttrComputeCapabilityMajor:
      *value = 9;
      return cudaSuccess;
    case cudaDevAttrComputeCapabilityMinor:
      *value = 0;
      return cudaSuccess;
  }
  return cuda_emulator::remember(cudaErrorInvalidValue);
}
