"""The table of what is tested: the page, CI and the package say the same as tests/versions.toml."""

import json
import re
import subprocess
import sys
import tomllib

import version_matrix
from version_matrix import MATRIX, ROOT

from jax_convgrad import versions

CI = (ROOT / ".ci" / "run").read_text()
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def in_ci():
    """The rows that `.ci/run` tests."""
    return [row for row in MATRIX["tested"] if ".ci/run" in row["where"]]


def test_the_page_has_this_table():
    (table,) = version_matrix.TABLE.findall(version_matrix.PAGE.read_text())
    assert table == version_matrix.table(), "run: python tests/support/version_matrix.py --write"


def test_the_package_names_the_lowest_and_the_newest_version():
    assert MATRIX["jax"]["lowest"] == versions.text(versions.LOWEST_JAX)
    newest = versions.numbers(MATRIX["jax"]["newest"])
    assert newest[: len(versions.NEWEST_TESTED_JAX)] == versions.NEWEST_TESTED_JAX


def test_the_lowest_python_and_the_lowest_jax_are_tested_together():
    tested = {(row["python"], row["jax"]) for row in in_ci() if "jax" in row}
    lowest = PROJECT["requires-python"].removeprefix(">=")
    assert (lowest, "lowest") in tested
    assert "newest" in {jax for _, jax in tested}


def test_ci_runs_each_row_that_says_so():
    for row in in_ci():
        assert re.search(rf"^make (?:.* )?{row['target']}(?: |$)", CI, re.MULTILINE), row


def test_ci_takes_its_versions_of_jax_from_the_table():
    taken = re.findall(r"^(\w+)=\$\((python3 .*)\)$", CI, re.MULTILINE)
    answers = {
        name: subprocess.run(
            [sys.executable, *command.split()[1:]], cwd=ROOT, capture_output=True, text=True, check=True
        ).stdout.strip()
        for name, command in taken
    }
    assert answers == {"JAX": MATRIX["jax"]["lowest"], "NEWEST_JAX": MATRIX["jax"]["newest"]}
    assert "export JAX NEWEST_JAX" in CI


def test_the_workflow_gets_one_job_for_each_row_with_a_runner():
    script = [sys.executable, "-S", version_matrix.__file__, "--jobs"]
    jobs = json.loads(subprocess.run(script, capture_output=True, text=True, check=True).stdout)
    rows = [row for row in MATRIX["tested"] if "runner" in row]
    for job, row in zip(jobs, rows, strict=True):
        assert (job["python"], job["runner"], job["target"]) == (row["python"], row["runner"], row["target"])
    assert {job["jax"] for job in jobs} == set(MATRIX["jax"].values())
    assert all("workflow" in row["where"] for row in rows)
