# The CPU kernels as objects: ${cpu_kernels}, for each of the programs that they are linked into. No Python and no
# XLA, and the same command line in every build: a compiler cache serves all builds with what one has compiled.
include(${CMAKE_CURRENT_LIST_DIR}/microkernels.cmake)
file(GLOB_RECURSE cpu_sources CONFIGURE_DEPENDS ${CMAKE_CURRENT_LIST_DIR}/*.cc)
list(FILTER cpu_sources EXCLUDE REGEX "/cpu_src/microkernels/")
add_library(cpu_planners OBJECT ${cpu_sources})
target_include_directories(cpu_planners PRIVATE "${CMAKE_CURRENT_LIST_DIR}/..")
target_compile_options(cpu_planners PRIVATE -Wall -Wextra $<$<CONFIG:Release>:-O3> -fvisibility=hidden)
set(cpu_kernels $<TARGET_OBJECTS:cpu_planners> ${cpu_microkernels})
