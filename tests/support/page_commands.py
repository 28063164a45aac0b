"""Checks that the parts of a page's commands exist: targets of make, scripts and their options, extras.

No test installs anything or runs commands that take minutes, but these checks find a command whose parts are
gone.
"""

import itertools
import re
import shlex
import tomllib
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
# Programs of other projects; only the paths among their arguments are checked.
OTHERS = {".", "apt-get", "cd", "cmake", "ctest", "git", "pytest", "ruff", "mypy", "source"}
# What scikit-build-core installs to build, unless --no-build-isolation leaves it to the caller.
BUILD_TOOLS = ("cmake", "ninja")
STARTS = ("make ", "python ", "python3 ", "pip install ", ".venv/bin/", "benchmarks/run_on_gpu.sh ")


def commands(code):
    """The commands of a shell block, each as a list of words, without comments and environment variables."""
    for line in code.replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        while words:
            end = next((i for i, word in enumerate(words) if word in ("&&", "||", "|", ";")), len(words))
            command, words = words[:end], words[end + 1 :]
            while command and re.match(r"\w+=", command[0]):
                command.pop(0)
            if command:
                yield command


def problems(command):
    """The parts of a command that do not exist, each as a phrase."""
    command = command[1:] if command[0] == "sudo" else command
    program, arguments = command[0].removeprefix(".venv/bin/"), command[1:]
    if program in ("python", "python3"):
        arguments = [word for word in arguments if word != "-P"]
        if arguments[:1] == ["-m"]:
            program, arguments = arguments[1], arguments[2:]
            found = _module(program, arguments)
        else:
            found = _script(arguments[0], arguments[1:]) if arguments else []
    elif program == "make":
        found = _make(arguments)
    elif program == "pip":
        found = _pip(arguments)
    elif "/" in program:
        found = _script(program, arguments)
    else:
        found = [] if program in OTHERS else [f"{program} is no program that this project speaks of"]
    return found + [f"{word} is not there" for word in arguments if _is_missing(word)]


def _is_missing(word):
    """Whether the word looks like a path into one of the repository's folders, and does not exist."""
    top = word.partition("/")[0]
    return "/" in word and top != "build" and (ROOT / top).is_dir() and not (ROOT / word).exists()


@cache
def _makefile():
    text = (ROOT / "Makefile").read_text()
    targets = re.findall(r"^([a-z][a-z0-9-]*):(?!=)", text, re.MULTILINE)
    return set(targets), set(re.findall(r"^(\w+)\s*[?:]?=", text, re.MULTILINE))


def _make(arguments):
    targets, variables = _makefile()
    words = [word for word in arguments if not word.startswith("-")]
    settings = {word.partition("=")[0] for word in words if "=" in word}
    asked = {word for word in words if "=" not in word}
    found = [f"the Makefile has no variable {name}" for name in sorted(settings - variables)]
    return found + [f"the Makefile has no target {name}" for name in sorted(asked - targets)]


def _pip(arguments):
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())
    project, build = settings["project"], settings["build-system"]["requires"]
    extras = project["optional-dependencies"]
    required = " ".join(itertools.chain(project["dependencies"], build, BUILD_TOOLS, *extras.values()))
    if arguments[:1] != ["install"]:
        return [f"pip {' '.join(arguments)} installs nothing"]
    found = []
    for position, word in enumerate(arguments[1:], 1):
        if arguments[position - 1] in ("-C", "--config-settings"):
            name = word.removeprefix("cmake.define.").partition("=")[0]
            if name not in (ROOT / "CMakeLists.txt").read_text():
                found.append(f"CMakeLists.txt knows nothing of {name}")
        elif not word.startswith("-"):
            name, _, rest = word.partition("[")
            wanted = [extra.strip() for extra in rest.rstrip("]").split(",") if rest]
            if name in (".", project["name"]):
                found += [f"the package has no extra {extra}" for extra in wanted if extra not in extras]
            elif not re.search(rf"(?<![\w-]){re.escape(re.split('[<>=~]', name)[0])}(?![\w-])", required):
                found.append(f"{word} is neither this package nor one that it asks for")
    return found


def _module(name, arguments):
    if name == "pip":
        return _pip(arguments)
    if name in ("pytest", "venv"):
        return []
    if name != "jax_convgrad":
        return [f"{name} is no module that this project speaks of"]
    sources = "".join(path.read_text() for path in (ROOT / "jax_convgrad").rglob("*.py"))
    unknown = [word for word in arguments[:1] if f'"{word}"' not in sources and not word.startswith("-")]
    return [f"jax_convgrad has no command {word}" for word in unknown] + _options("jax_convgrad", arguments)


def _script(path, arguments):
    if not (ROOT / path).is_file():
        return [f"there is no script {path}"]
    return _options(str(Path(path).parent), arguments)


def _options(folder, arguments):
    """The options that no source in the folder contains, whole or as the word that argparse receives."""
    sources = [*(ROOT / folder).rglob("*.py"), *(ROOT / folder).rglob("*.sh")]
    text = "\n".join(path.read_text() for path in sources) + "--help"
    options = {word.partition("=")[0] for word in arguments if word.startswith("--")}
    missing = sorted(name for name in options if name not in text and f'"{name[2:]}"' not in text)
    return [f"{folder} has no option {name}" for name in missing]
