# jax_convgrad._cuda: the CUDA kernels and their handlers.
if(NOT CMAKE_CUDA_ARCHITECTURES)
  # One binary for each generation from Ampere on, and PTX of the last for what comes after.
  set(CMAKE_CUDA_ARCHITECTURES 80-real 86-real 89-real 90a-real 100-real 120)
endif()
enable_language(CUDA)
find_package(CUDAToolkit REQUIRED)
set(CMAKE_CUDA_STANDARD 17)
set(CMAKE_CUDA_STANDARD_REQUIRED ON)

file(GLOB cuda_sources CONFIGURE_DEPENDS cuda_src/*.cu cuda_src/*.cc)
nanobind_add_module(_cuda STABLE_ABI NB_STATIC ffi_src/module_cuda.cc ffi_src/handlers_cuda.cc
                    ffi_src/decode.cc ${cuda_sources})
target_compile_definitions(_cuda PRIVATE CONVGRAD_MODULE=_cuda)
# The static runtime, so that the module loads beside whichever CUDA libraries JAX brought, and without any.
target_link_libraries(_cuda PRIVATE jax_convgrad_ffi CUDA::cudart_static)
install(TARGETS _cuda LIBRARY DESTINATION jax_convgrad)
