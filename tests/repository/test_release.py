"""The version, the changelog and the citation agree; a tag that does not agree with them is not released."""

import re
import shutil
import subprocess
import sys

import pytest
import release
from release import ROOT

import jax_convgrad

# The texts that repeat the version, and how.
COPIES = {
    "README.md": r"Version (\d+\.\d+\.\d+)",
    "docs/doctor.md": r"jax_convgrad (\d+\.\d+\.\d+)",
    "CITATION.cff": r"(?m)^version: (.+)$",
}
# The sections that "Keep a Changelog" has.
SECTIONS = ["Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"]


def test_the_package_has_the_version_of_its_file():
    assert release.the_version(ROOT) == jax_convgrad.__version__


@pytest.mark.parametrize("file", COPIES)
def test_a_text_repeats_the_version(file):
    found = re.findall(COPIES[file], (ROOT / file).read_text())
    assert found and set(found) == {release.the_version(ROOT)}


def test_the_changelog_keeps_its_form():
    lines = (ROOT / "CHANGELOG.md").read_text().splitlines()
    versions = [line.removeprefix("## ") for line in lines if line.startswith("## ")]
    assert versions[0] == "[Unreleased]"
    dates = [re.fullmatch(r"\[\d+\.\d+\.\d+\] - (\d{4}-\d\d-\d\d)", version)[1] for version in versions[1:]]
    assert dates == sorted(dates, reverse=True)
    sections = [line.removeprefix("### ") for line in lines if line.startswith("### ")]
    assert sections and set(sections) <= set(SECTIONS)


@pytest.fixture
def released(tmp_path):
    """A repository that is ready for the tag v1.2.3."""
    (tmp_path / "jax_convgrad").mkdir()
    (tmp_path / "jax_convgrad" / "__init__.py").write_text('"""."""\n\n__version__ = "1.2.3"\n')
    (tmp_path / "CHANGELOG.md").write_text(
        "# Changelog\n\n## [Unreleased]\n\n## [1.2.3] - 2027-01-31\n\n### Added\n\n* x\n"
    )
    (tmp_path / "CITATION.cff").write_text("title: x\nversion: 1.2.3\ndate-released: 2027-01-31\n")
    (tmp_path / "docs").mkdir()
    for page in release.INSTALLING:
        (tmp_path / page).write_text("# Start\n\n```sh\npip install jax_convgrad\n```\n")
    return tmp_path


def test_a_release_in_which_all_agree(released):
    assert list(release.faults("v1.2.3", released)) == []


@pytest.mark.parametrize(
    "file, old, new, fault",
    [
        ("jax_convgrad/__init__.py", "1.2.3", "1.2.4", "The tag is v1.2.3"),
        ("CHANGELOG.md", "## [1.2.3] - 2027-01-31", "", "CHANGELOG.md has no heading"),
        ("CHANGELOG.md", "- 2027-01-31", "- soon", "CHANGELOG.md has no heading"),
        ("CHANGELOG.md", "2027-01-31", "2027-02-01", "date-released: 2027-02-01"),
        ("CITATION.cff", "version: 1.2.3", "version: 1.2.2", "CITATION.cff is not about 1.2.3"),
        ("CITATION.cff", "date-released", "date", "date-released: 2027-01-31"),
        ("CHANGELOG.md", "* x", "Nothing has been released\nyet.", "CHANGELOG.md says"),
        ("README.md", "# Start", "Wheels of it are not published\nyet.", "README.md says"),
        ("docs/doctor.md", "# Start", "Until it is published, clone.", "docs/doctor.md says"),
        ("README.md", "pip install jax_convgrad", "pip install .", "README.md installs from a clone"),
        ("docs/doctor.md", "jax_convgrad", '"jax_convgrad[cuda13]"', "docs/doctor.md installs from a clone"),
    ],
)
def test_what_does_not_agree_is_named(released, file, old, new, fault):
    text = (released / file).read_text()
    assert old in text
    (released / file).write_text(text.replace(old, new))
    assert fault in "\n".join(release.faults("v1.2.3", released))


def test_the_texts_of_today_are_recognised():
    released = re.search(r"^## \[\d", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    files = {file for file, _ in release.unpublished()}
    assert not files if released else {"README.md", "CHANGELOG.md"} <= files


def test_without_a_tag_it_says_how_to_call_it():
    script = [sys.executable, "-S", release.__file__]
    answer = subprocess.run(script, capture_output=True, text=True)
    assert answer.returncode == 2 and answer.stderr.startswith("usage: release.py")


def test_a_file_of_another_version_is_no_release(released):
    shutil.copy(ROOT / "CITATION.cff", released)
    assert "CITATION.cff is not about 1.2.3." in list(release.faults("v1.2.3", released))
