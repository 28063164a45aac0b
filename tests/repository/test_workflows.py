"""The workflows call what there is: targets of make, scripts, and versions of the table of what is tested.

`make lint` checks their form. They run on GitHub alone, but each of their steps runs anywhere.
"""

import itertools
import json
import re
import tomllib

import page_commands
import pytest
import yaml
from version_matrix import MATRIX, ROOT, jobs

WORKFLOWS = sorted((ROOT / ".github").glob("workflows/*.yml"))
ACTIONS = sorted((ROOT / ".github").glob("actions/*/action.yml"))
CI = (ROOT / ".ci" / "run").read_text()
TESTS = ROOT / ".github" / "workflows" / "tests.yml"
PYTHONS = {row["python"] for row in MATRIX["tested"] if "python" in row}
PINS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]


def job_steps(path):
    """All steps in the file."""
    content = yaml.safe_load(path.read_text())
    jobs = content.get("jobs", {"action": content.get("runs")})
    return [step for job in jobs.values() for step in job.get("steps", [])]


def commands(path):
    """Each command of the file's steps."""
    scripts = [step["run"] for step in job_steps(path) if "run" in step]
    return [command for script in scripts for command in page_commands.commands(script)]


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_targets_and_scripts_are_there(path):
    made = [command for command in commands(path) if command[0] == "make"]
    scripts = [c for c in commands(path) if c[0] == "python3" and c[1] != "-m"]
    for command in made + scripts:
        words = [word for word in command if "$" not in word]
        assert page_commands.problems(words) == []
    assert made or scripts


def test_targets_of_the_table_are_there():
    for job in jobs():
        assert page_commands.problems(["make", job["target"], f"JAX={job['jax']}"]) == []


@pytest.mark.parametrize("path", WORKFLOWS + ACTIONS, ids=lambda path: path.stem)
def test_actions_are_named_by_their_major_version(path):
    used = [step["uses"] for step in job_steps(path) if "uses" in step]
    assert used
    for action in used:
        if action.startswith("./"):
            assert (ROOT / action / "action.yml").is_file()
        else:
            assert re.fullmatch(r"(?:actions/[\w-]+@v\d+|pypa/gh-action-pypi-publish@release/v1)", action)


def test_versions_are_those_of_the_table():
    for path in WORKFLOWS:
        given = [step.get("with", {}) for step in job_steps(path)]
        pythons = {inputs.get("python", inputs.get("python-version")) for inputs in given} - {None}
        assert pythons <= PYTHONS | {"${{ matrix.python }}"}, path
        assert not re.search(r"jax\w*==", path.read_text()), path
    tests = yaml.safe_load(TESTS.read_text())["jobs"]["tests"]
    assert tests["strategy"]["matrix"] == {"include": "${{ fromJSON(needs.versions.outputs.jobs) }}"}
    used = set(re.findall(r"matrix\.(\w+)", str(tests)))
    assert used == set(jobs()[0])


def targets(found):
    """The targets of make among these commands, without options and variables."""
    words = itertools.chain.from_iterable(command[1:] for command in found if command[0] == "make")
    return {word for word in words if re.fullmatch(r"[a-z]+(?:-[a-z0-9]+)*", word)}


def test_what_runs_in_ci_alone_is_named():
    lines = re.findall(r"^(?:\w+=.* )?make .+$", CI, re.MULTILINE)
    in_ci = targets(page_commands.commands("\n".join(lines)))
    in_workflows = targets(commands(TESTS)) | {job["target"] for job in jobs()}
    assert {"test", "lint"} <= in_ci & in_workflows
    head = TESTS.read_text().partition("\nname:")[0].replace("\n# ", " ")
    (in_head,) = re.findall(r"except ([^.]*), each on", head)
    (in_page,) = re.findall(r"except\s(`make\s[^.]*), which", (ROOT / "CONTRIBUTING.md").read_text())
    for said in in_head, in_page:
        named = set(re.findall(r"[a-z0-9-]+", said)) - {"and", "make"}
        assert in_ci - in_workflows <= named
        assert not named & in_workflows


def test_warnings_are_errors_as_in_ci():
    ((name, value),) = yaml.safe_load(TESTS.read_text())["env"].items()
    assert f"export {name}={value}\n" in CI
    presets = json.loads((ROOT / "CMakePresets.json").read_text())["configurePresets"]
    assert presets[0]["cacheVariables"]["CMAKE_COMPILE_WARNING_AS_ERROR"] == f"$env{{{name}}}"


def test_only_the_job_that_publishes_may_do_more_than_read():
    for path in WORKFLOWS:
        content = yaml.safe_load(path.read_text())
        assert content["permissions"] == {"contents": "read"}
        more = {name: job["permissions"] for name, job in content["jobs"].items() if "permissions" in job}
        assert more == ({"publish": {"id-token": "write"}} if path.stem == "wheels" else {})


def test_publishing_waits_for_every_test_and_wheel():
    jobs = yaml.safe_load((ROOT / ".github" / "workflows" / "wheels.yml").read_text())["jobs"]
    assert set(jobs["publish"]["needs"]) == set(jobs) - {"publish"}
    assert jobs["release"]["if"] == "github.ref_type == 'tag'"  # and without it nothing is published


def test_the_hooks_have_the_versions_of_lint():
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"][0]["hooks"]
    hooked = {pin for hook in hooks for pin in hook["additional_dependencies"] if "==" in pin}
    assert hooked == {pin for pin in PINS["lint"] if re.match("ruff|mypy|clang-format", pin)}


def test_the_bug_report_asks_for_the_doctor():
    form = yaml.safe_load((ROOT / ".github" / "ISSUE_TEMPLATE" / "bug_report.yml").read_text())
    doctor = next(part for part in form["body"] if part.get("id") == "doctor")
    assert "python -m jax_convgrad doctor" in doctor["attributes"]["description"]
    assert doctor["validations"]["required"]
