# Links _cuda for the glibc of jaxlib's own wheels, which is older than this system's. nvcc needs g++, whose objects need
# its libstdc++. So that library is linked in, and zig's linker, which knows each version of glibc, takes the place of
# g++'s. The processor is x86-64.
foreach(file IN ITEMS libstdc++.a libgcc_s.so.1)
  execute_process(COMMAND "${CMAKE_CXX_COMPILER}" -print-file-name=${file} OUTPUT_VARIABLE path
                  OUTPUT_STRIP_TRAILING_WHITESPACE COMMAND_ERROR_IS_FATAL ANY)
  list(APPEND gcc_libraries "${path}")
endforeach()
file(WRITE "${CMAKE_BINARY_DIR}/exports.map" "{ global: PyInit_*; local: *; };\n")
list(JOIN gcc_libraries " " gcc_libraries)
set(CMAKE_CXX_CREATE_SHARED_MODULE
    "\"${JAX_CONVGRAD_ZIG}\" cc -target x86_64-linux-gnu.2.27 -shared -o <TARGET> <OBJECTS> <LINK_LIBRARIES> \
${gcc_libraries} -lpthread -lrt -lm -Wl,-s -Wl,--gc-sections \"-Wl,--version-script=${CMAKE_BINARY_DIR}/exports.map\"")
enable_language(C)
target_sources(_cuda PRIVATE cuda_src/package/single_threaded.c)
