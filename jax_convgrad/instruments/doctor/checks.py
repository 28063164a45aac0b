"""What the self-check's process has told, as a section."""

from __future__ import annotations

from jax_convgrad.instruments.doctor.processes import Outcome
from jax_convgrad.instruments.doctor.report import Section
from jax_convgrad.table import Table
from jax_convgrad.versions import NEWEST_TESTED_JAX, text


def check_section(platform: str, outcome: Outcome, seconds: float) -> Section:
    """Of one platform: the errors as a table of ops and dtypes, and what is wrong."""
    section = Section(f"Self-check on {platform}")
    section.facts = {"platform": platform, "seconds": round(seconds, 1), **outcome.as_facts()}
    dtypes = {name: told for name, told in outcome.steps.items() if name != "install"}
    wrong = _wrong(section, platform, dtypes)
    if outcome.failures:
        step, failure = next(iter(outcome.failures.items()))
        where = f"{platform}, {step}: {failure}"
        if step == "install" and failure.raised:
            section.fail("install-fails", where, newest=text(NEWEST_TESTED_JAX))
        elif failure.raised:
            section.fail("self-check-raises", where)
        elif failure.timed_out:
            section.fail("self-check-hangs", where)
        else:
            section.fail("self-check-dies", where)
    elif outcome.steps["install"]:
        section.fail("install-fails", outcome.steps["install"], newest=text(NEWEST_TESTED_JAX))
    elif not wrong:
        section.ok(
            f"every op in {len(dtypes)} dtypes agrees with jax.lax, gives the same bits twice, and install() "
            f"works ({seconds:.0f} s)"
        )
    if dtypes:
        section.note("largest error, in units of its bound:")
        section.table = _table(dtypes)
    return section


def _wrong(section: Section, platform: str, dtypes: dict) -> bool:
    found = False
    for dtype, told in dtypes.items():
        off = {op: error for op, error in told["errors"].items() if error[0] > 1}
        if off:
            worst = max(off, key=lambda op: off[op][0])
            ratio, case = off[worst]
            several = f" (and {len(off) - 1} more ops)" if len(off) > 1 else ""
            section.fail(
                "numbers-wrong",
                f"{platform}, {dtype}: {worst} is off by {ratio:.3g} bounds in {case}{several}",
            )
        if told["bits_differ"]:
            section.fail(
                "numbers-vary", f"{platform}, {dtype}: other bits in a second run of {told['bits_differ'][0]}"
            )
        found |= bool(off or told["bits_differ"])
    return found


def _table(dtypes: dict) -> str:
    ops = list(dict.fromkeys(op for told in dtypes.values() for op in told["errors"]))

    def cell(told: dict, op: str) -> str:
        ratio = told["errors"][op][0]
        return f"{ratio:.2f}" if ratio <= 1 else f"{ratio:.3g} !"

    rows = [(op, *(cell(told, op) for told in dtypes.values())) for op in ops]
    table = str(Table(("op", *dtypes), rows, frozenset(dtypes)))
    return "\n".join("           " + line for line in table.splitlines())
