# Tests of kernels that cannot be reached through Python, one ctest test each.
set(kernel_sources "${root}/cuda_src/pooling.cc" "${root}/cuda_src/pool_plan.cc" "${root}/cuda_src/bgrad_plan.cc"
    "${root}/cuda_src/flatten.cc" "${root}/cuda_src/add_parts.cu")
file(GLOB pool_sources CONFIGURE_DEPENDS "${root}/cuda_src/vector_*.cu" "${root}/cuda_src/direct_*_pool.cu"
     "${root}/cuda_src/direct_bgrad.cu")
file(GLOB kernel_tests CONFIGURE_DEPENDS kernels/*.cc kernels/*.cu)
set_source_files_properties(${kernel_sources} ${pool_sources} ${kernel_tests} PROPERTIES LANGUAGE CXX)
add_executable(kernel_tests selftest/main.cc ${kernel_tests} ${kernel_sources} ${pool_sources})
target_include_directories(kernel_tests PRIVATE selftest)
target_link_libraries(kernel_tests PRIVATE cuda_emulator)

foreach(source IN LISTS kernel_tests)
  file(STRINGS "${source}" lines REGEX "^TEST\\(")
  foreach(line IN LISTS lines)
    string(REGEX REPLACE "^TEST\\(([a-z0-9_]+)\\).*" "\\1" name "${line}")
    add_test(NAME "${name}" COMMAND kernel_tests "${name}")
  endforeach()
endforeach()
