"""``doctor``: whether this machine is set up, and what to do where it is not."""

from __future__ import annotations

import argparse
import json
import sys

from jax_convgrad.instruments.doctor import sections
from jax_convgrad.instruments.doctor.processes import look
from jax_convgrad.instruments.doctor.report import FAILED, Report

_PARTS = ("float32", "bfloat16", "float16", "float64", "install")


def add_command(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds ``doctor`` to the commands of ``python -m jax_convgrad``."""
    parser = commands.add_parser(
        "doctor",
        description="Whether this machine is set up: versions, kernels, devices, and a self-check of every "
        "op against jax.lax, which takes about five seconds. For each problem it says what to do.",
        epilog="The exit code is 1 where something FAILED, 0 where there are warnings at most.",
    )
    parser.add_argument("--quick", action="store_true", help="leave the self-check out")
    parser.add_argument("--json", action="store_true", help="all that was found, to go with a bug report")
    parser.set_defaults(run=_run)


def _run(parsed: argparse.Namespace) -> int:
    report = Report(prints=not parsed.json)
    # XLA would otherwise take most memory of a GPU that others may be using.
    environment = {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
    results = look(sections.STEPS, timeout=120, **environment)
    sections.versions(report, results)
    sections.kernels(report, results)
    sections.devices(report, results)
    sections.settings(report)
    has_kernels = results["jax_convgrad"].value or ()
    usable = [name for name in has_kernels if name == "cpu" or results[f"devices {name}"].value]
    checked = usable if results["devices"].value and not parsed.quick else []
    for platform in checked:
        environment["JAX_PLATFORMS"] = ",".join(dict.fromkeys((platform, "cpu")))
        found = look([f"self_check {platform} {part}" for part in _PARTS], timeout=400, **environment)
        sections.self_check(report, platform, found)
        results |= found
    verdict = report.verdict(checked)
    if parsed.json:
        facts = {"sys.path": sys.path, **{step: vars(result) for step, result in results.items()}}
        print(json.dumps({"verdict": verdict, "findings": report.findings, "facts": facts}, indent=2))
    else:
        print(f"\n{verdict}")
    return 1 if report.problems(FAILED) else 0
