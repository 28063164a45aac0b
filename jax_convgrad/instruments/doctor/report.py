"""The findings of the doctor, as text and as JSON, and what to do about each problem."""

from __future__ import annotations

import shlex
import sys

from jax_convgrad.versions import LOWEST_JAX, NEWEST_TESTED_JAX, text

FAILED, WARNING, OK, NOTE = "FAILED", "warning", "ok", "note"

_INSTALL = f"{shlex.quote(sys.executable)} -m pip install"
_CUDA = f"{_INSTALL} --no-deps . --config-settings cmake.define.JAX_CONVGRAD_CUDA=ON"
_REPORT = "report it, with the output of: python -m jax_convgrad doctor --json"
_JAX = f"jax>={text(LOWEST_JAX)},<{NEWEST_TESTED_JAX[0]}.{NEWEST_TESTED_JAX[1] + 1}"

REMEDIES = {
    "package-missing": f'{_INSTALL} "{_JAX}"',
    "package-broken": f'{_INSTALL} --force-reinstall "{_JAX}"; else {_REPORT}',
    "package-too-old": f'{_INSTALL} --upgrade "{_JAX}"',
    "source-folder": "{instead}",
    "kernels-unusable": "{remedy} (or, in a clone, . instead of the name: this compiles them)",
    "instruction-set-unknown": "unset JAX_CONVGRAD_CPU_ISA, or set it to one of: {known}",
    "jax-has-no-device": "correct or unset JAX_PLATFORMS and XLA_FLAGS; does JAX_PLATFORMS=cpu help?",
    "jax-without-gpu": "unset JAX_PLATFORMS, CUDA_VISIBLE_DEVICES and LD_LIBRARY_PATH, or "
    f'{_INSTALL} --upgrade "jax[cuda{{major}}]"',
    "cuda-package-mismatch": f'{_INSTALL} "{{package}}=={{version}}"',
    "cuda-kernels-missing": "{remedy}",
    "cuda-kernels-misfit": "update NVIDIA's driver, or build for this GPU: "
    f"{_CUDA} --config-settings cmake.define.CMAKE_CUDA_ARCHITECTURES=native (in a clone)",
    "install-fails": "use replace_convolutions(f), which needs none of JAX's private names",
    "self-check-fails": _REPORT,
}


def with_this_python(remedy: str) -> str:
    """A remedy of ``native``, for the interpreter that runs."""
    return remedy.replace("pip install", _INSTALL)


class Report:
    """The findings so far. With ``prints`` each is printed at once."""

    def __init__(self, prints: bool = False) -> None:
        self.prints, self.section = prints, ""
        self.findings: list[dict[str, str]] = []

    def begin(self, section: str) -> None:
        """Begins a section, to which the following findings belong."""
        if self.prints:
            print(f"\n{section}" if self.section else section)
        self.section = section

    def add(self, state: str, text: str, problem: str = "", **details: str) -> None:
        """Adds a finding; ``details`` fill in the remedy of its problem."""
        remedy = REMEDIES[problem].format(**details) if problem else ""
        self.findings.append(
            dict(section=self.section, state=state, text=text, problem=problem, remedy=remedy)
        )
        if self.prints:
            lines = f"{text}\n-> {remedy}" if remedy else text
            print(f"  {state.replace(NOTE, ''):9}" + lines.replace("\n", "\n" + 11 * " "), flush=True)

    def problems(self, state: str) -> list[str]:
        """The names of the problems in this state."""
        return [finding["problem"] for finding in self.findings if finding["state"] == state]

    def verdict(self, checked: list[str]) -> str:
        """The last line: what is fine, or what to do next. ``checked`` are the platforms of self-checks."""
        remedies = [finding["remedy"] for finding in self.findings if finding["state"] == FAILED]
        if remedies:
            several = f"{len(remedies)} problems; mend this one first" if len(remedies) > 1 else "What to do"
            return f"{several}: {remedies[0]}"
        fine = f"every op agrees with jax.lax on {' and '.join(checked)}" if checked else "no op was run"
        return f"It works: {fine}; see above." if self.problems(WARNING) else f"All is well: {fine}."
