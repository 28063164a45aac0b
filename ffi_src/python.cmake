# The modules need Python, nanobind, and jaxlib's FFI headers (jax_convgrad_ffi). pip builds with the headers of the
# jaxlib that the build requirements pin (pyproject.toml says why).
find_package(Python 3.11 REQUIRED COMPONENTS Interpreter Development.Module
             OPTIONAL_COMPONENTS Development.SABIModule)
function(ask_python expression out)
  execute_process(COMMAND "${Python_EXECUTABLE}" -c "${expression}" OUTPUT_STRIP_TRAILING_WHITESPACE
                  OUTPUT_VARIABLE answer COMMAND_ERROR_IS_FATAL ANY)
  set(${out} "${answer}" PARENT_SCOPE)
endfunction()
ask_python("import nanobind; print(nanobind.cmake_dir())" nanobind_ROOT)
ask_python("import pathlib, jaxlib; print(pathlib.Path(jaxlib.__file__).parent / 'include')" FFI_INCLUDE_DIR)
find_package(nanobind CONFIG REQUIRED)

add_library(jax_convgrad_ffi INTERFACE)
target_include_directories(jax_convgrad_ffi INTERFACE "${CMAKE_SOURCE_DIR}")
target_include_directories(jax_convgrad_ffi SYSTEM INTERFACE "${FFI_INCLUDE_DIR}")
