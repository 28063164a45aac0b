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
set(reference_sources ${cpu_sources})
list(FILTER reference_sources INCLUDE REGEX "/cpu_src/reference/")
list(FILTER cpu_sources EXCLUDE REGEX "/cpu_src/reference/")
add_library(cpu_planners OBJECT ${cpu_sources})
add_library(cpu_reference OBJECT ${reference_sources})
# g++ vectorises loops well only from -O3 on. Nobody waits for the reference kernels; they come last, since the linker
# keeps the first copy of an inline function that several objects have.
target_compile_options(cpu_planners PRIVATE $<$<CONFIG:Release>:$<IF:$<CXX_COMPILER_ID:GNU>,-O3,-O2>>)
target_compile_options(cpu_reference PRIVATE $<$<CONFIG:Release>:-Os>)
foreach(part cpu_planners cpu_reference)
  target_include_directories(${part} PRIVATE "${CMAKE_CURRENT_LIST_DIR}/..")
  target_compile_options(${part} PRIVATE -Wall -Wextra -fvisibility=hidden)
  compile_together(${part})
endforeach()
set(cpu_kernels $<TARGET_OBJECTS:cpu_planners> ${cpu_microkernels} $<TARGET_OBJECTS:cpu_reference>)
