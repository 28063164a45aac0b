# _cuda_emulated: the project's CUDA kernels and FFI handlers, run by the emulator. JAX calls it on the
# "cpu" platform.
find_package(Python 3.9 REQUIRED COMPONENTS Interpreter Development.Module)

function(ask_python variable code)
  execute_process(COMMAND "${Python_EXECUTABLE}" -c "${code}" OUTPUT_VARIABLE answer
                  OUTPUT_STRIP_TRAILING_WHITESPACE COMMAND_ERROR_IS_FATAL ANY)
  set(${variable} "${answer}" PARENT_SCOPE)
endfunction()
ask_python(nanobind_ROOT "import nanobind; print(nanobind.cmake_dir())")
ask_python(ffi_headers "import os, jaxlib; print(os.path.join(os.path.dirname(jaxlib.__file__), 'include'))")
find_package(nanobind CONFIG REQUIRED)

set(ffi_sources decode.cc handlers_cuda.cc module_cuda.cc)
list(TRANSFORM ffi_sources PREPEND "${root}/ffi_src/")

nanobind_add_module(_cuda_emulated NB_STATIC NB_SUPPRESS_WARNINGS NOMINSIZE NOSTRIP
                    ${ffi_sources} module/counters.cc module/launches.cc)
target_link_libraries(_cuda_emulated PRIVATE emulated_kernels)
target_include_directories(_cuda_emulated SYSTEM PRIVATE "${ffi_headers}")
# Both modules may be imported by one process, so they have different names.
target_compile_definitions(_cuda_emulated PRIVATE CONVGRAD_MODULE=_cuda_emulated
                           "CONVGRAD_CUDA_TOOLKIT=\"\"" "CONVGRAD_CUDA_ARCHITECTURES=\"emulated\"")
