# Tests of kernels that cannot be reached through Python, one ctest test each.
file(GLOB kernel_tests CONFIGURE_DEPENDS kernels/*.cc kernels/*.cu)
set_source_files_properties(${kernel_tests} PROPERTIES LANGUAGE CXX)
add_executable(kernel_tests selftest/main.cc ${kernel_tests})
target_include_directories(kernel_tests PRIVATE selftest)
target_link_libraries(kernel_tests PRIVATE emulated_kernels)

foreach(source IN LISTS kernel_tests)
  file(STRINGS "${source}" lines REGEX "^TEST\\(")
  foreach(line IN LISTS lines)
    string(REGEX REPLACE "^TEST\\(([a-z0-9_]+)\\).*" "\\1" name "${line}")
    add_test(NAME "${name}" COMMAND kernel_tests "${name}")
  endforeach()
endforeach()
