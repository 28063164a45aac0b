# Checks of the emulator itself, one ctest test each.

file(GLOB selftest_kernels CONFIGURE_DEPENDS selftest/*.cu)
set_source_files_properties(${selftest_kernels} PROPERTIES LANGUAGE CXX)
set(selftest_of_interfaces selftest/counters.cc selftest/counters_sm90.cc selftest/meeting.cc) # the emulator's interfaces, which a GPU does not have
add_executable(selftest selftest/main.cc ${selftest_of_interfaces} ${selftest_kernels})
target_include_directories(selftest PRIVATE selftest)
target_link_libraries(selftest PRIVATE cuda_emulator)

foreach(source IN LISTS selftest_kernels selftest_of_interfaces)
  file(STRINGS "${source}" lines REGEX "^TEST\\(")
  foreach(line IN LISTS lines)
    string(REGEX REPLACE "^TEST\\(([a-z0-9_]+)\\).*" "\\1" name "${line}")
    add_test(NAME "${name}" COMMAND selftest "${name}")
  endforeach()
endforeach()

if(CMAKE_BUILD_TYPE STREQUAL "Sanitized")
  function(add_found_by_sanitizer name words)
    add_test(NAME "${name}" COMMAND selftest "${name}")
    set_tests_properties("${name}" PROPERTIES PASS_REGULAR_EXPRESSION "${words}")
  endfunction()
  add_found_by_sanitizer(misaligned_float4 "misaligned address")
  add_found_by_sanitizer(float4_past_the_end "heap-buffer-overflow")
  add_found_by_sanitizer(store_past_global_memory "heap-buffer-overflow")
endif()
