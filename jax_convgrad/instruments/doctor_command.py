"""``doctor``: is this machine set up, and if not, what is to be done about it.

It runs where nothing else does: it imports neither JAX nor the kernels, but looks at them from processes of
their own, whose crash is a finding. So what it imports has to be in the standard library.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from typing import Any

from jax_convgrad.instruments.doctor import gpu, kernels, machine, packages, report
from jax_convgrad.instruments.doctor.checks import check_section
from jax_convgrad.instruments.doctor.processes import look
from jax_convgrad.instruments.doctor.report import Section

_EPILOG = """\
The exit code is 1 where something FAILED: JAX or the package cannot be imported, kernels do not load or give
wrong numbers, or JAX computes on a GPU that the kernels cannot have (built without CUDA, or for other GPUs).
It is 0 where there are warnings at most: a GPU that JAX itself leaves alone, say, since all works without.
It is 2 for a wrong command line.
"""


def add_command(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds ``doctor`` to the commands of ``python -m jax_convgrad``."""
    parser = commands.add_parser(
        "doctor",
        description="Whether this machine is set up: versions, kernels, CPU, GPU, and a self-check, of about "
        "ten seconds, of every op against jax.lax. For each problem it says what to do.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--quick", action="store_true", help="leave the self-check out")
    parser.add_argument("--json", action="store_true", help="all that was found, to go with a bug report")
    parser.set_defaults(run=_run)


def _run(parsed: argparse.Namespace) -> int:
    sections: list[Section] = []

    def add(section: Section) -> Section:
        sections.append(section)
        if not parsed.json:
            print(section, end="\n\n", flush=True)
        return section

    checked = examine(add, quick=parsed.quick)
    if parsed.json:
        print(json.dumps(report.as_json(sections, checked), indent=2))
    else:
        print(report.verdict(sections, checked))
    return 1 if report.findings_of(sections, report.FAILED) else 0


def examine(add: Any, quick: bool) -> list[str]:
    """Gives each section to ``add`` once it is there; returns the platforms on which every op is right."""
    add(machine.python_section())
    # Of a GPU that others use at the same time, no more memory than is needed.
    jax = look("jax", timeout=120, environment={"XLA_PYTHON_CLIENT_PREALLOCATE": "false"})
    add(packages.packages_section(jax))
    cpu, cuda = kernels.load("_cpu"), kernels.load("_cuda")
    add(kernels.kernels_section(cpu, cuda, jax))
    add(machine.cpu_section(cpu))
    add(machine.settings_section())
    add(gpu.gpu_section(look("driver", timeout=60), cuda, jax, gpu.plugins()))
    if quick:
        return []
    if "jax_convgrad" not in jax.steps:
        section = Section("Self-check")
        section.note("not run, since the package cannot be imported")
        add(section)
        return []
    fine = []
    with_kernels = jax.steps["jax_convgrad"]
    kinds = (jax.steps.get("devices") or {"kinds": {}})["kinds"]
    for platform in with_kernels:
        if platform != "cpu" and platform not in kinds:
            continue
        if sys.stderr.isatty():
            print(f"self-check on {platform}, about ten seconds ...", end="\r", file=sys.stderr, flush=True)
        start = time.monotonic()
        outcome = look(
            "self_check",
            platform,
            timeout=180 if platform == "cpu" else 400,
            environment={
                "JAX_PLATFORMS": ",".join(dict.fromkeys((platform, "cpu"))),
                "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
            },
        )
        section = add(check_section(platform, outcome, time.monotonic() - start))
        if not any(finding.problem for finding in section.findings):
            fine.append(platform)
    return fine
