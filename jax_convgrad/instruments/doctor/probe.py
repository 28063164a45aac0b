"""The steps that the doctor runs in another process, by name."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
import traceback
from typing import Any

from jax_convgrad import after_jax, native
from jax_convgrad.instruments.doctor.processes import MARK


def _run(name: str, *arguments: str) -> Any:
    if name == "nvidia-smi":
        query = ["nvidia-smi", "--query-gpu=driver_version,name,compute_cap", "--format=csv,noheader"]
        done = subprocess.run(query, capture_output=True, text=True)
        return (done.stdout + done.stderr).strip()
    if name == "devices":
        return importlib.import_module("jax").devices(*arguments)[0].platform
    if name == "self_check":
        return importlib.import_module("jax_convgrad.instruments.doctor.self_check").run(*arguments)
    package = (name == "_cuda" and native.cuda_package()) or "jax_convgrad"
    module: Any = importlib.import_module(f"{package}.{name}" if name.startswith("_") else name)
    if name == "jax_convgrad":
        importlib.import_module("jax_convgrad.public_names")
        return sorted(importlib.import_module("jax_convgrad.primitives.targets").backends)
    if name.startswith("_"):
        return module.ffi_api_version(), module.build() if name == "_cuda" else module.instruction_sets()
    return [str(getattr(module, attribute, "")) for attribute in ("__version__", "__file__")]


if __name__ == "__main__":
    after_jax.forget()  # the kernels are imported in steps of their own: a crash is then not JAX's fault
    for step in sys.argv[1:]:
        try:
            result = {"value": _run(*step.split())}
        except BaseException as error:
            failure = f"{type(error).__name__}: {error}".removesuffix(": ")
            result = {"failure": failure, "details": traceback.format_exc()}
        print(f"\n{MARK}{json.dumps([step, result])}", flush=True)
