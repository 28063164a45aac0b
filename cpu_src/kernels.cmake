# The CPU kernels as objects: ${cpu_kernels}, for each of the programs that they are linked into. No Python and no
# XLA, and the same command line in every build: a compiler cache serves all builds with what one has compiled.

# The build type of the sanitizers (CMakePresets.json). -O1, since unrolled tiles that are sanitized and optimised in
# full take minutes each to compile. The checks of every address' alignment and object, which AddressSanitizer's
# would double, are off.
set(CMAKE_CXX_FLAGS_SANITIZED "-O1 -g1 -fno-omit-frame-pointer -fsanitize=address,undefined \
-fno-sanitize=alignment,null,object-size,pointer-overflow,vptr -fno-sanitize-recover=undefined")
include(${CMAKE_CURRENT_LIST_DIR}/microkernels.cmake)
file(GLOB_RECURSE cpu_sources CONFIGURE_DEPENDS ${CMAKE_CURRENT_LIST_DIR}/*.cc)
list(FILTER cpu_sources EXCLUDE REGEX "/cpu_src/microkernels/")
add_library(cpu_planners OBJECT ${cpu_sources})
target_include_directories(cpu_planners PRIVATE "${CMAKE_CURRENT_LIST_DIR}/..")
target_compile_options(cpu_planners PRIVATE -Wall -Wextra $<$<CONFIG:Release>:-O3> -fvisibility=hidden)
set(cpu_kernels $<TARGET_OBJECTS:cpu_planners> ${cpu_microkernels})
