"""What PyPI gets: the page that it shows, the workflow's wheels, and the source distribution."""

import re
import tarfile
import tomllib

import pytest
import wheels
from page_blocks import ROOT, links

SETTINGS = tomllib.loads((ROOT / "pyproject.toml").read_text())
PROJECT = SETTINGS["project"]
PAGE = (ROOT / PROJECT["readme"]).read_text()
README = (ROOT / "README.md").read_text()


def test_no_link_or_picture_needs_the_repository():
    assert list(links(README))  # which PyPI would break
    assert list(links(PAGE)) == [] and "<img" not in PAGE


def test_the_page_says_what_the_readme_says():
    first = PAGE.split("\n\n")[1]
    assert first in README
    figures = re.findall(r"^\|.*\d\.\d\d.*\|$", PAGE, re.MULTILINE)
    assert len(figures) == 3
    (measured,) = re.findall(r"^Measured on .*[^.\n]", PAGE, re.MULTILINE)
    for text in (*figures, measured):
        assert text in README


def test_the_versions_of_python_are_named():
    named = {int(minor) for minor in re.findall(r"Python :: 3\.(\d+)", "\n".join(PROJECT["classifiers"]))}
    assert min(named) == int(PROJECT["requires-python"].removeprefix(">=3."))
    assert {python.minor for python in wheels.PYTHONS} <= named
    assert named == set(range(min(named), max(named) + 1))
    threaded = [name for name in PROJECT["classifiers"] if "Free Threading" in name]
    assert bool(threaded) == any(python.free_threaded for python in wheels.PYTHONS)


def test_the_page_of_wheels_names_those_that_the_workflow_does_not_build():
    built = set(re.findall(r"(cp\d+t?)-\*", SETTINGS["tool"]["cibuildwheel"]["build"]))
    recipe = {f"cp3{python.minor}{'t' * python.free_threaded}" for python in wheels.PYTHONS}
    page = (ROOT / "docs" / "wheels.md").read_text()
    (without,) = re.findall(r"the same without `(\w+)`", page)
    assert recipe - built == {without}
    (cells,) = re.findall(r"^\| Python \|(.*)\|$", page, re.MULTILINE)
    assert re.findall(r"`(cp\d+t?)", cells.partition("|")[0]) == sorted(recipe)


def test_the_source_distribution_has_what_the_tests_read(tmp_path, monkeypatch):
    backend = pytest.importorskip("scikit_build_core.build")
    monkeypatch.chdir(ROOT)
    name = backend.build_sdist(str(tmp_path))
    with tarfile.open(tmp_path / name) as archive:
        files = {file.partition("/")[2] for file in archive.getnames()}
    assert {PROJECT["readme"], ".ci/run", ".pre-commit-config.yaml", "tests/versions.toml"} <= files
    shown = {str(path.relative_to(ROOT)) for path in (ROOT / ".github").rglob("*.yml")}
    assert len(shown) > 5 and shown <= files
