"""The includes and names of the C++ sources: kernels include nothing of XLA, Python or the other backend."""

import re
from collections.abc import Iterable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
# Maps each folder to the folders whose files it may include.
MAY_INCLUDE = {
    "common_src": {"common_src"},
    "cpu_src": {"common_src", "cpu_src"},
    "cuda_src": {"common_src", "cuda_src"},
    "ffi_src": {"common_src", "cpu_src", "cuda_src", "ffi_src"},
}
# Headers of XLA, Python or JAX, which only ffi_src may include.
FOREIGN = re.compile(r"xla/|nanobind|Python\.h|pybind")


def sources(folder: str) -> Iterable[Path]:
    found = [path for path in (ROOT / folder).rglob("*.*") if path.suffix in (".h", ".cc", ".cu", ".cuh")]
    assert found
    return found


def includes(path: Path) -> list[str]:
    return re.findall(r'^\s*#\s*include\s+["<]([^">]+)[">]', path.read_text(), re.MULTILINE)


@pytest.mark.parametrize("folder", MAY_INCLUDE)
def test_folders_include_only_what_lies_below_them(folder):
    wrong = [
        f"{path.relative_to(ROOT)} includes {name}"
        for path in sources(folder)
        for name in includes(path)
        if (name.split("/")[0] in MAY_INCLUDE and name.split("/")[0] not in MAY_INCLUDE[folder])
        or (folder != "ffi_src" and FOREIGN.search(name))
    ]
    assert not wrong


def assert_no_circle(graph: dict[str, Iterable[str]]) -> None:
    done: set[str] = set()

    def walk(node: str, on_the_way: tuple[str, ...]) -> None:
        assert node not in on_the_way, " -> ".join([*on_the_way, node])
        if node in done:
            return
        for name in graph.get(node, ()):
            walk(name, (*on_the_way, node))
        done.add(node)

    for node in graph:
        walk(node, ())


def test_no_circles_of_files():
    """A file that includes itself by way of others has a part that belongs into a file of its own."""
    assert_no_circle(
        {
            path.relative_to(ROOT).as_posix(): [name for name in includes(path) if (ROOT / name).is_file()]
            for folder in MAY_INCLUDE
            for path in sources(folder)
        }
    )


@pytest.mark.parametrize("backend", ["cpu_src", "cuda_src"])
def test_no_circles_of_kernels_folders(backend):
    """What two kernels share lies in neither's folder."""
    graph: dict[str, set[str]] = {}
    for path in sources(backend):
        folder = path.parent.relative_to(ROOT).as_posix()
        if folder == backend:
            continue
        others = {Path(name).parent.as_posix() for name in includes(path) if name.startswith(f"{backend}/")}
        graph.setdefault(folder, set()).update(others - {folder, backend})
    assert len(graph) > 5
    assert_no_circle(graph)


def test_every_include_of_ours_exists():
    emulated = ROOT / "tests" / "cuda_emulator" / "include"
    missing = [
        f"{path.relative_to(ROOT)} includes {name}"
        for folder in MAY_INCLUDE
        for path in sources(folder)
        for name in includes(path)
        if name.split("/")[0] in MAY_INCLUDE and not (ROOT / name).is_file()
    ]
    shadows = [
        path for path in emulated.rglob("*_src/**/*.*h") if not (ROOT / path.relative_to(emulated)).is_file()
    ]
    assert not missing
    assert not shadows, "the emulator replaces a header that is not there"


def file_local_names(path: Path) -> set[str]:
    """What a source defines in its anonymous namespace."""
    names = set()
    anonymous = re.compile(r"^namespace \{\n(.*?)^\}  // namespace$", re.MULTILINE | re.DOTALL)
    for body in anonymous.findall(path.read_text()):
        # clang-format leaves only the first line of a definition, and macros' names, without an indent.
        for line in re.sub(r"__attribute__\(\(\w+\)\) |template <[^\n]*", "", body).splitlines():
            found = re.match(r"(?:struct|class|enum class|using) (\w+)", line) or re.match(
                r"\w[^(=]*?\b(\w+)(?:<[^()=]*>)?(?:\(| = | \{|\[|;)", line
            )
            if found:
                names.add(found[1])
    return names


def compiled_together() -> dict[str, list[Path]]:
    microkernels = list((ROOT / "cpu_src" / "microkernels").glob("*.cc"))
    planners = [path for path in (ROOT / "cpu_src").rglob("*.cc") if path not in microkernels]
    cuda_plans = [*(ROOT / "cuda_src").rglob("plan.cc"), ROOT / "cuda_src" / "plan_facts.cc"]
    return {"microkernels": microkernels, "planners": planners, "cuda_plans": cuda_plans}


@pytest.mark.parametrize("group", ["microkernels", "planners", "cuda_plans"])
def test_names_are_unique_among_sources_that_are_compiled_together(group):
    """CMake compiles these as one file, where a call could choose an overload of another source."""
    owners: dict[str, str] = {}
    for path in compiled_together()[group]:
        for name in file_local_names(path):
            assert name not in owners, f"{name} is in {owners[name]} and in {path.name}"
            owners[name] = path.name
    assert len(owners) > 10
