# The CPU kernels as objects, ${cpu_kernels}, for all programs that link them. They use no Python and no XLA, and have
# the same command line in every build, so that all builds share a compiler cache.

# The build type of the sanitizers (CMakePresets.json). It has -O1, since each file with unrolled tiles would take
# minutes to compile with sanitizers and full optimisation. The checks of alignment and object size are off, since
# AddressSanitizer already checks every address.
set(CMAKE_CXX_FLAGS_SANITIZED "-O1 -g1 -fno-omit-frame-pointer -fsanitize=address,undefined \
-fno-sanitize=alignment,null,object-size,pointer-overflow,vptr -fno-sanitize-recover=undefined")
include(${CMAKE_CURRENT_LIST_DIR}/microkernels.cmake)
file(GLOB_RECURSE cpu_sources CONFIGURE_DEPENDS ${CMAKE_CURRENT_LIST_DIR}/*.cc)
list(FILTER cpu_sources EXCLUDE REGEX "/cpu_src/microkernels/")
add_library(cpu_planners OBJECT ${cpu_sources})
target_include_directories(cpu_planners PRIVATE "${CMAKE_CURRENT_LIST_DIR}/..")
target_compile_options(cpu_planners PRIVATE -Wall -Wextra $<$<CONFIG:Release>:-O3> -fvisibility=hidden)
set(cpu_kernels $<TARGET_OBJECTS:cpu_planners> ${cpu_microkernels})
