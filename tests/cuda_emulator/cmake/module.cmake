# _cuda_emulated: the project's CUDA kernels and FFI handlers, run by the emulator. JAX calls it on the
# "cpu" platform.
set(ffi_sources decode.cc handlers_cuda.cc module_cuda.cc)
list(TRANSFORM ffi_sources PREPEND "${root}/ffi_src/")

nanobind_add_module(_cuda_emulated NB_STATIC NB_SUPPRESS_WARNINGS NOMINSIZE NOSTRIP
                    ${ffi_sources} module/counters.cc module/launches.cc)
target_link_libraries(_cuda_emulated PRIVATE emulated_kernels jax_convgrad_ffi)
# Both modules may be imported by one process, so they have different names.
target_compile_definitions(_cuda_emulated PRIVATE CONVGRAD_MODULE=_cuda_emulated
                           "CONVGRAD_CUDA_TOOLKIT=\"\"" "CONVGRAD_CUDA_ARCHITECTURES=\"emulated\"")
