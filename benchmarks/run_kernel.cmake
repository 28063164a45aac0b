# The native program that benchmarks/instructions.py counts the instructions of: the kernels and a main().
add_executable(run_kernel EXCLUDE_FROM_ALL benchmarks/run_kernel.cc ${cpu_sources} ${cpu_microkernels})
target_include_directories(run_kernel PRIVATE "${CMAKE_SOURCE_DIR}")
target_compile_options(run_kernel PRIVATE -Wall -Wextra $<$<CONFIG:Release>:-O3>)
