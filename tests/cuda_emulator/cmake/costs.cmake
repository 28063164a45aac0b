# Counts the costs of the kernels and their plans: the compiler adds a function call at the beginning of each basic
# block. Each file is a ctest test with the label "costs". `make costs` builds and runs them separately, since they
# compile every kernel again.
add_library(counted_kernels OBJECT EXCLUDE_FROM_ALL ${cuda_sources})
target_link_libraries(counted_kernels PUBLIC cuda_emulator)
target_compile_definitions(counted_kernels PRIVATE CONVGRAD_HAS_SM90A)
target_compile_options(counted_kernels PRIVATE -O1 -fsanitize-coverage=trace-pc)

add_executable(kernel_costs EXCLUDE_FROM_ALL selftest/main.cc costs/costs.cc)
target_include_directories(kernel_costs PRIVATE selftest)
target_link_libraries(kernel_costs PRIVATE counted_kernels)

file(STRINGS costs/costs.cc lines REGEX "^TEST\\(")
foreach(line IN LISTS lines)
  string(REGEX REPLACE "^TEST\\(([a-z0-9_]+)\\).*" "\\1" name "${line}")
  add_test(NAME "${name}" COMMAND kernel_costs "${name}")
  set_tests_properties("${name}" PROPERTIES LABELS costs)
endforeach()
