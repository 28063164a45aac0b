# Fails if an object of the microkernels defines a symbol that the linker may take from another object
# instead: a function compiled for one instruction set could then run on machines without it
# (cpu_src/microkernels/simd.h). Symbols in the instruction set's namespace exist only once.
#
#   cmake -D NM=nm -D NAMESPACE=convgrad::cpu::avx2:: -D "OBJECTS=a.o;b.o" -P shared_symbols.cmake
set(found "")
set(functions 0)
foreach(object IN LISTS OBJECTS)
  execute_process(COMMAND "${NM}" --demangle --defined-only "${object}" OUTPUT_VARIABLE symbols
                  COMMAND_ERROR_IS_FATAL ANY)
  string(REPLACE ";" "," symbols "${symbols}")
  string(REGEX MATCHALL "[^\n]+" symbols "${symbols}")
  foreach(symbol IN LISTS symbols)
    if(symbol MATCHES "^[0-9a-f]+ T ")
      math(EXPR functions "${functions} + 1")
    endif()
    if(symbol MATCHES "^[0-9a-f]+ [WwVvu] (.*)$")
      string(FIND "${CMAKE_MATCH_1}" "${NAMESPACE}" in_namespace)
      if(in_namespace EQUAL -1)
        string(APPEND found "  ${symbol}\n    in ${object}\n")
      endif()
    endif()
  endforeach()
endforeach()
if(functions EQUAL 0)
  message(FATAL_ERROR "no function is defined in ${OBJECTS}")
endif()
if(found)
  message(FATAL_ERROR "shared among instruction sets, of which the linker keeps one:\n${found}")
endif()
