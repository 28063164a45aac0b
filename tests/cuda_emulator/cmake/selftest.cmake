# Checks of the emulator itself, one ctest test each.
enable_testing()

file(GLOB selftest_kernels CONFIGURE_DEPENDS selftest/*.cu)
set_source_files_properties(${selftest_kernels} PROPERTIES LANGUAGE CXX)
set(selftest_of_interfaces selftest/counters.cc selftest/counters_sm90.cc selftest/meeting.cc) # the emulator's own, which no GPU has
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

if(JAX_CONVGRAD_SANITIZE)
  function(add_found_by_sanitizer name words)
    add_test(NAME "${name}" COMMAND selftest "${name}")
    set_tests_properties("${name}" PROPERTIES PASS_REGULAR_EXPRESSION "${words}")
  endfunction()
  add_found_by_sanitizer(misaligned_float4 "misaligned address")
  add_found_by_sanitizer(float4_past_the_end "heap-buffer-overflow")
  add_found_by_sanitizer(store_past_global_memory "heap-buffer-overflow")
endif()

# The self-test's kernels stay valid CUDA, or it would check a language of its own; those of PTX also for devices
# that lack some of its instructions, since the package has code for them.
find_program(JAX_CONVGRAD_NVCC nvcc PATHS /usr/local/cuda/bin)
if(JAX_CONVGRAD_NVCC AND NOT JAX_CONVGRAD_SANITIZE)
  foreach(source IN LISTS selftest_kernels)
    get_filename_component(name "${source}" NAME_WE)
    set(architectures 90a)
    if(name MATCHES "^ptx_")
      set(architectures 75 80 90a)
    endif()
    list(TRANSFORM architectures REPLACE "(.+)" "-gencode=arch=compute_\\1,code=sm_\\1")
    add_test(NAME "nvcc_compiles_${name}"
             COMMAND "${JAX_CONVGRAD_NVCC}" -std=c++17 -O3 ${architectures} -Werror all-warnings
                     "-I${CMAKE_CURRENT_SOURCE_DIR}/selftest" "-I${root}" -c "${source}"
                     -o "${CMAKE_CURRENT_BINARY_DIR}/nvcc_${name}.o")
  endforeach()
endif()
