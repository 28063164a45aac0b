# The microkernels, compiled once for each instruction set in a namespace of its name (cpu_src/isa.h); the process
# chooses one at run time. ${cpu_microkernels} has the objects of the oldest instruction set first: if several objects
# define the same symbol after all, the linker keeps the first one, which runs everywhere.
file(GLOB microkernel_sources CONFIGURE_DEPENDS ${CMAKE_CURRENT_LIST_DIR}/microkernels/*.cc)
set(isas plain)
set(isa_flags_plain "")
set(optimisation_plain -O3)
if(CMAKE_SYSTEM_PROCESSOR MATCHES "^(x86_64|AMD64)$")
  list(APPEND isas avx2 avx512)
  set(isa_flags_avx2 -march=x86-64-v3)
  set(isa_flags_avx512 -march=x86-64-v4 -mprefer-vector-width=512)
  set(optimisation_plain -O1) # for the oldest processors (kOldProcessor in simd.h)
endif()
set(optimisation_avx2 -O3)
set(optimisation_avx512 -O3)
set(cpu_microkernels "")
foreach(isa IN LISTS isas)
  set(sources_${isa} ${microkernel_sources})
endforeach()
# For AVX512-BF16 only what multiplies pairs of bf16, or rounds to bf16 (cpu_src/bf16_dots.h).
if("avx512" IN_LIST isas)
  list(APPEND isas avx512_bf16)
  set(isa_flags_avx512_bf16 ${isa_flags_avx512} -mavx512bf16 -DCONVGRAD_BF16_DOTS)
  set(optimisation_avx512_bf16 -O3)
  file(GLOB sources_avx512_bf16 CONFIGURE_DEPENDS ${CMAKE_CURRENT_LIST_DIR}/microkernels/avx512_bf16/*.cc)
  foreach(source activation_tile filter_tile dot_tile rows)
    list(APPEND sources_avx512_bf16 ${CMAKE_CURRENT_LIST_DIR}/microkernels/${source}.cc)
  endforeach()
endif()
foreach(isa IN LISTS isas)
  add_library(cpu_microkernels_${isa} OBJECT ${sources_${isa}})
  target_include_directories(cpu_microkernels_${isa} PRIVATE "${CMAKE_CURRENT_LIST_DIR}/..")
  target_compile_definitions(cpu_microkernels_${isa} PRIVATE CONVGRAD_ISA=${isa})
  # Multiply-adds are fused if the instruction set can. -Wpsabi warns about vectors passed in registers, which here
  # happens only between functions of one file; and g++ 12 reports its intrinsics' undefined operands as
  # uninitialised variables.
  target_compile_options(cpu_microkernels_${isa} PRIVATE -Wall -Wextra -Wno-psabi -Wno-uninitialized
                         $<$<CXX_COMPILER_ID:GNU>:-Wno-maybe-uninitialized> -ffp-contract=fast
                         $<$<CONFIG:Release>:${optimisation_${isa}}> -fvisibility=hidden ${isa_flags_${isa}})
  compile_together(cpu_microkernels_${isa})
  list(APPEND cpu_microkernels $<TARGET_OBJECTS:cpu_microkernels_${isa}>)
endforeach()
