"""What the doctor has found: sections of findings, as text and for programs."""

from __future__ import annotations

import shlex
import sys
from dataclasses import dataclass, field
from typing import Any

from jax_convgrad.instruments.doctor.remedies import REMEDIES

FAILED = "FAILED"
WARNING = "warning"
OK = "ok"
NOTE = ""  # worth knowing, neither good nor bad


def _remedy(problem: str, details: dict[str, str]) -> str:
    return REMEDIES[problem].format(python=shlex.quote(sys.executable), **details)


_WIDTH = max(map(len, (FAILED, WARNING, OK)))


@dataclass(frozen=True)
class Finding:
    """One line; a warning or failure has the name of its problem and what to do about it."""

    state: str
    text: str
    problem: str = ""
    remedy: str = ""

    def __str__(self) -> str:
        """The line, and the remedy on another."""
        first, *others = self.text.splitlines() or [""]
        indent = " " * (_WIDTH + 4)
        lines = [f"  {self.state:{_WIDTH}}  {first}", *(indent + line for line in others)]
        return "\n".join([*lines, f"{indent}-> {self.remedy}"] if self.remedy else lines)


@dataclass
class Section:
    """Findings about one thing; ``facts`` are what they were made of, for bug reports."""

    name: str
    findings: list[Finding] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)
    table: str = ""

    def ok(self, text: str) -> None:
        """Adds that something is as it should be."""
        self.findings.append(Finding(OK, text))

    def note(self, text: str) -> None:
        """Adds what is worth knowing."""
        self.findings.append(Finding(NOTE, text))

    def warn(self, problem: str, text: str, **details: str) -> None:
        """Adds a problem that one can work with. ``details`` fill in its remedy."""
        self.findings.append(Finding(WARNING, text, problem, _remedy(problem, details)))

    def fail(self, problem: str, text: str, **details: str) -> None:
        """Adds a problem for which the exit code is 1. ``details`` fill in its remedy."""
        self.findings.append(Finding(FAILED, text, problem, _remedy(problem, details)))

    def __str__(self) -> str:
        """The name, and the findings below it."""
        return "\n".join([self.name, *map(str, self.findings), *([self.table] if self.table else [])])


def findings_of(sections: list[Section], state: str) -> list[Finding]:
    """Those in this state, in their order."""
    return [finding for section in sections for finding in section.findings if finding.state == state]


def verdict(sections: list[Section], checked: list[str]) -> str:
    """The last line: what is fine, or what to do next. ``checked`` are the platforms of the self-check."""
    failures, warnings = findings_of(sections, FAILED), findings_of(sections, WARNING)
    if failures:
        several = f"{len(failures)} problems; the first to mend" if len(failures) > 1 else "What to do"
        return f"{several}: {failures[0].remedy}"
    fine = (
        f"every op agrees with jax.lax on {' and '.join(checked)}"
        if checked
        else "all that was looked at is as it should be, and the ops were not run"
    )
    if warnings:
        which = "the warning above says" if len(warnings) == 1 else f"{len(warnings)} warnings above say"
        return f"It works: {fine}; {which} what could be better."
    return f"All is well: {fine}."


def as_json(sections: list[Section], checked: list[str]) -> dict[str, Any]:
    """The whole report in plain types."""
    failures, warnings = findings_of(sections, FAILED), findings_of(sections, WARNING)
    return {
        "doctor": 1,  # the version of this form
        "state": FAILED if failures else WARNING if warnings else OK,
        "problems": [finding.problem for finding in failures + warnings],
        "verdict": verdict(sections, checked),
        "sections": [
            {
                "name": section.name,
                "findings": [
                    {"state": f.state or "note", "text": f.text, "problem": f.problem, "remedy": f.remedy}
                    for f in section.findings
                ],
                "facts": section.facts,
            }
            for section in sections
        ],
    }
