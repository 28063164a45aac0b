# The CPU kernels as objects, ${cpu_kernels}, for all programs that link them. They use no Python and no XLA, and have
# the same command line in every build, so that all builds share a compiler cache.

# The build type of the sanitizers (CMakePresets.json). It has -O1, since each file with unrolled tiles would take
# minutes to compile with sanitizers and full optimisation. The checks of alignment and object size are off, since
# AddressSanitizer already checks every address.
set(CMAKE_CXX_FLAGS_SANITIZED "-O1 -g1 -fno-omit-frame-pointer -fsanitize=address,undefined \
-fno-sanitize=alignment,null,object-size,pointer-overflow,vptr -fno-sanitize-recover=undefined")

# Compiles the sources of each target as one, or in batches: otherwise reading headers would take a third of the time.
set(JAX_CONVGRAD_BATCH 0 CACHE STRING "Sources that are compiled as one; 0: all of a target, 1: each alone")
function(compile_together)
  set_target_properties(${ARGV} PROPERTIES UNITY_BUILD ON UNITY_BUILD_BATCH_SIZE ${JAX_CONVGRAD_BATCH})
endfunction()
include(${CMAKE_CURRENT_LIST_DIR}/microkernels.cmake)
file(GLOB_RECURSE cpu_sources CONFIGURE_DEPENDS ${CMAKE_CURRENT_LIST_DIR}/*.cc)
list(FILTER cpu_sources EXCLUDE REGEX "/cpu_src/microkernels/")
add_library(cpu_planners OBJECT ${cpu_sources})
target_include_directories(cpu_planners PRIVATE "${CMAKE_CURRENT_LIST_DIR}/..")
target_compile_options(cpu_planners PRIVATE -Wall -Wextra $<$<CONFIG:Release>:-O3> -fvisibility=hidden)
compile_together(cpu_planners)
set(cpu_kernels $<TARGET_OBJECTS:cpu_planners> ${cpu_microkernels})
