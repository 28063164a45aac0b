# The module _cuda: the CUDA kernels and their handlers. It is installed in the package ${cuda_destination}.
set(architectures ${CMAKE_CUDA_ARCHITECTURES})
if(NOT architectures)
  # Otherwise enable_language() writes its default into the cache, and the next run of CMake takes that for the user's.
  set(CMAKE_CUDA_ARCHITECTURES OFF)
endif()
enable_language(CUDA)
if(JAX_CONVGRAD_CUDA_PACKAGE)
  string(REGEX REPLACE "^.*cuda" "" major "${JAX_CONVGRAD_CUDA_PACKAGE}")
  if(NOT CMAKE_CUDA_COMPILER_VERSION MATCHES "^${major}[.]")
    message(FATAL_ERROR "${JAX_CONVGRAD_CUDA_PACKAGE} needs nvcc ${major}, but ${CMAKE_CUDA_COMPILER} is "
                        "${CMAKE_CUDA_COMPILER_VERSION}")
  endif()
endif()
if(NOT architectures)
  # A binary for each generation from Turing on that this nvcc supports, and PTX that the driver can compile for any
  # other generation from Ampere on.
  set(architectures 75-real 80 86-real 89-real 90a-real)
  if(CMAKE_CUDA_COMPILER_VERSION VERSION_GREATER_EQUAL 12.8)
    list(APPEND architectures 100-real 120-real)
  endif()
endif()
find_package(CUDAToolkit REQUIRED)
set(CMAKE_CUDA_STANDARD 17)
set(CMAKE_CUDA_STANDARD_REQUIRED ON)

# Separate objects, which do not depend on Python: modules for several Pythons can take them from one build.
set(JAX_CONVGRAD_CUDA_BUILD "" CACHE PATH "The folder of another build, whose objects of the kernels are taken")
file(GLOB_RECURSE cuda_sources CONFIGURE_DEPENDS cuda_src/*.cu cuda_src/*.cc)
if(JAX_CONVGRAD_CUDA_BUILD)
  file(READ "${JAX_CONVGRAD_CUDA_BUILD}/cuda_architectures" architectures)
  set(objects "${JAX_CONVGRAD_CUDA_BUILD}/CMakeFiles/cuda_kernels.dir")
  list(TRANSFORM cuda_sources REPLACE "^${CMAKE_SOURCE_DIR}/(.*)$" "${objects}/\\1.o")
  add_library(cuda_kernels OBJECT IMPORTED)
  set_target_properties(cuda_kernels PROPERTIES IMPORTED_OBJECTS "${cuda_sources}")
else()
  file(WRITE "${CMAKE_BINARY_DIR}/cuda_architectures" "${architectures}")
  add_library(cuda_kernels OBJECT ${cuda_sources})
  target_include_directories(cuda_kernels PRIVATE "${CMAKE_SOURCE_DIR}")
  target_compile_options(cuda_kernels PRIVATE $<$<COMPILE_LANGUAGE:CXX>:-Wall -Wextra -fvisibility=hidden>)
  set_target_properties(cuda_kernels PROPERTIES CUDA_ARCHITECTURES "${architectures}"
                        CUDA_VISIBILITY_PRESET hidden)
  target_link_libraries(cuda_kernels PUBLIC CUDA::cudart_static)
  if(architectures MATCHES "90a")
    target_compile_definitions(cuda_kernels PRIVATE CONVGRAD_HAS_SM90A)
  endif()
endif()

nanobind_add_module(_cuda STABLE_ABI FREE_THREADED NB_STATIC ffi_src/module_cuda.cc ffi_src/handlers_cuda.cc
                    ffi_src/decode.cc)
target_compile_definitions(_cuda PRIVATE CONVGRAD_MODULE=_cuda
                           "CONVGRAD_CUDA_TOOLKIT=\"${CMAKE_CUDA_COMPILER_VERSION}\""
                           "CONVGRAD_CUDA_ARCHITECTURES=\"$<JOIN:${architectures}, >\"")
set_target_properties(_cuda PROPERTIES CUDA_ARCHITECTURES "${architectures}")
# The runtime is static, so that the module loads together with any CUDA libraries of JAX, and without them.
target_link_libraries(_cuda PRIVATE jax_convgrad_ffi cuda_kernels CUDA::cudart_static)
set(JAX_CONVGRAD_ZIG "" CACHE FILEPATH "zig, which links the CUDA module for an older glibc than this system's")
if(JAX_CONVGRAD_ZIG)
  include(cuda_src/package/zig_link.cmake)
endif()
install(TARGETS _cuda LIBRARY DESTINATION ${cuda_destination})
