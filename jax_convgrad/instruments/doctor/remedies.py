"""Each problem that the doctor knows, by name, and what to do about it. docs/doctor.md has the same table."""

from __future__ import annotations

_REINSTALL = "{python} -m pip install --force-reinstall --no-deps --no-cache-dir . (in a clone)"
_WITH_CUDA = (
    "{python} -m pip install --no-deps . --config-settings cmake.define.JAX_CONVGRAD_CUDA=ON (in a clone)"
)
_FOR_THIS_GPU = (
    "{python} -m pip install --no-deps . --config-settings cmake.define.JAX_CONVGRAD_CUDA=ON "
    "--config-settings cmake.define.CMAKE_CUDA_ARCHITECTURES={architecture} (in a clone)"
)
_REPORT = "report it, with the output of: python -m jax_convgrad doctor --json"

REMEDIES = {
    # Python and the packages
    "python-too-old": "make a virtual environment of Python 3.11 or later, and install there",
    "package-missing": '{python} -m pip install "{requirement}"',
    "package-broken": '{python} -m pip install --upgrade --force-reinstall "{requirement}"',
    "package-too-old": '{python} -m pip install --upgrade "{requirement}"',
    "package-untested": 'nothing, if the self-check is fine; else {python} -m pip install "{requirement}"',
    "jaxlib-fft-deadlocks": "nothing for a program without FFTs on the CPU; else "
    '{python} -m pip install "jax!=0.11.1" "jaxlib!=0.11.1"',
    "source-folder-shadows": "take the clone out of PYTHONPATH, so that the installed package is found",
    "source-folder-not-built": "{install}",
    "installed-for-another-python": "{other} -m jax_convgrad doctor",
    "versions-differ": _REINSTALL,
    # The native modules
    "module-missing": _REINSTALL,
    "module-of-another-python": _REINSTALL,
    "module-broken": _REINSTALL,
    "module-too-old": _REINSTALL,
    "module-needs-library": "install the system's package with {library}; or build for this system: "
    + _REINSTALL,
    "module-of-newer-system": "build it on this system: " + _REINSTALL,
    "module-kills-python": "build it on this machine: " + _REINSTALL,
    "ffi-older-than-module": '{python} -m pip install --upgrade "jax>={lowest}" "jaxlib>={lowest}"',
    "ffi-of-another-kind": '{python} -m pip install "jax<={newest}.*" "jaxlib<={newest}.*"',
    "import-fails": _REPORT,
    # CPU and settings
    "instruction-set-unknown": "unset JAX_CONVGRAD_CPU_ISA, or set it to one of: {known}",
    "instruction-set-narrowed": "unset JAX_CONVGRAD_CPU_ISA, unless it is meant",
    "cpu-without-avx2": "nothing, if the processor has none; a virtual machine may hide the host's",
    "setting-unknown": "it may be misspelt: what there is to set is JAX_CONVGRAD_CPU_ISA",
    "setting-slows": "unset it, once done with debugging",
    # JAX and its devices
    "xla-flags-unknown": "correct or unset XLA_FLAGS",
    "jax-has-no-device": "unset JAX_PLATFORMS, or install JAX for the platform that it names",
    "jax-dies": "does JAX run without its accelerator? Try JAX_PLATFORMS=cpu python -m jax_convgrad doctor",
    # GPU
    "driver-missing": "install NVIDIA's driver; a container is to be started with --gpus all",
    "driver-fails": "see what nvidia-smi says; after an update of the driver restart the machine",
    "gpu-hidden": "unset CUDA_VISIBLE_DEVICES, unless it is meant",
    "jax-without-cuda": '{python} -m pip install "jax[cuda{cuda}]"',
    "jax-cuda-fails": 'unset LD_LIBRARY_PATH; {python} -m pip install --upgrade "jax[cuda{cuda}]"',
    "cuda-kernels-missing": "{nvcc}; then CUDACXX={path} " + _WITH_CUDA,
    "driver-older-than-toolkit": "update NVIDIA's driver, or build with a CUDA {driver} toolkit: "
    + _WITH_CUDA,
    "gpu-architecture-missing": _FOR_THIS_GPU,
    "gpu-compiles-at-first-call": "nothing, or " + _FOR_THIS_GPU,
    # The self-check
    "numbers-wrong": _REPORT,
    "numbers-vary": _REPORT,
    "install-fails": "use replace_convolutions(f), which does without JAX's private names; or jax {newest}",
    "self-check-raises": _REPORT,
    "self-check-dies": _REPORT,
    "self-check-hangs": "try again when the machine is less busy; else " + _REPORT,
}
