# The microkernels, compiled once for each instruction set in a namespace of its name (cpu_src/isa.h); which one
# runs is chosen at run time. ${cpu_microkernels} are the objects, the plainest first: should a function shared
# among them have a symbol of its own after all, the linker keeps the one that runs everywhere.
file(GLOB microkernel_sources CONFIGURE_DEPENDS ${CMAKE_CURRENT_LIST_DIR}/microkernels/*.cc)
set(isas plain)
set(isa_flags_plain "")
if(CMAKE_SYSTEM_PROCESSOR MATCHES "^(x86_64|AMD64)$")
  list(APPEND isas avx2 avx512)
  set(isa_flags_avx2 -march=x86-64-v3)
  set(isa_flags_avx512 -march=x86-64-v4 -mprefer-vector-width=512)
endif()
set(cpu_microkernels "")
foreach(isa IN LISTS isas)
  add_library(cpu_microkernels_${isa} OBJECT ${microkernel_sources})
  target_include_directories(cpu_microkernels_${isa} PRIVATE "${CMAKE_CURRENT_LIST_DIR}/..")
  target_compile_definitions(cpu_microkernels_${isa} PRIVATE CONVGRAD_ISA=${isa})
  # Multiply and add as one where the instruction set can. Vectors are passed in registers only among functions of
  # one file, which is all that -Wpsabi is about; and g++ 12 takes its own intrinsics' undefined operands for
  # uninitialised variables.
  target_compile_options(cpu_microkernels_${isa} PRIVATE -Wall -Wextra -Wno-psabi -Wno-maybe-uninitialized
                         -Wno-uninitialized -ffp-contract=fast
                         $<$<CONFIG:Release>:-O3> -fvisibility=hidden ${isa_flags_${isa}})
  list(APPEND cpu_microkernels $<TARGET_OBJECTS:cpu_microkernels_${isa}>)
endforeach()
