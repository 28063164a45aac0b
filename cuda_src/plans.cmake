# ${cuda_plans}: the choice of the CUDA kernel and its tiles for a problem. This is plain C++ without CUDA's headers, so
# the CPU's module can report the plan on every machine.
file(GLOB cuda_plan_sources CONFIGURE_DEPENDS ${CMAKE_CURRENT_LIST_DIR}/*/plan.cc)
list(APPEND cuda_plan_sources ${CMAKE_CURRENT_LIST_DIR}/plan.cc ${CMAKE_CURRENT_LIST_DIR}/plan_facts.cc
     ${CMAKE_CURRENT_LIST_DIR}/flatten.cc ${CMAKE_CURRENT_LIST_DIR}/block/choice.cc
     ${CMAKE_CURRENT_LIST_DIR}/wgmma/im2col.cc)
add_library(cuda_planners OBJECT ${cuda_plan_sources})
target_include_directories(cuda_planners PRIVATE "${CMAKE_CURRENT_LIST_DIR}/..")
target_compile_options(cuda_planners PRIVATE -Wall -Wextra $<$<CONFIG:Release>:-O2> -fvisibility=hidden)
compile_together(cuda_planners)
set(cuda_plans $<TARGET_OBJECTS:cuda_planners>)
