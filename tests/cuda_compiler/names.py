"""Makes kernels' names readable."""

import re
import subprocess
from collections.abc import Iterable
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


@cache
def _enumerators() -> dict[str, list[str]]:
    """The enumerators' names of each enumeration in cuda_src, in the order of their values."""
    found = {}
    for path in [*(ROOT / "common_src").glob("*.h"), *(ROOT / "cuda_src").rglob("*.*h")]:
        for name, body in re.findall(r"enum class (\w+)[^{;]*\{([^}=]*)\}", path.read_text()):
            found[name] = [one.strip().removeprefix("k") for one in body.split(",") if one.strip()]
    return found


def _readable(name: str) -> str:
    name = re.sub(r"^void ", "", name)
    depth = 0  # the function's parameters follow the template's arguments
    for at, letter in enumerate(name):
        depth += (letter == "<") - (letter == ">")
        if letter == "(" and depth == 0 and not name.startswith("(anonymous namespace)", at):
            name = name[:at]
            break
    name = re.sub(r"\(anonymous namespace\)::|_GLOBAL__N__\w+::|\bconvgrad::(cuda::)?", "", name)
    for enumeration, names in _enumerators().items():
        name = re.sub(rf"\({enumeration}\)(\d+)", lambda match, names=names: names[int(match[1])], name)
    return re.sub(r"\((?:unsigned )?(?:int|bool|long)\)(?=-?\d)", "", name).replace("> >", ">>")


def readable(mangled: Iterable[str]) -> dict[str, str]:
    """Each mangled name's function and template arguments, without namespaces and parameters.

    Raises:
      FileNotFoundError: c++filt, a part of binutils, is not installed.
    """
    names = sorted(set(mangled))
    ran = subprocess.run(["c++filt"], input="\n".join(names), capture_output=True, text=True, check=True)
    return {name: _readable(plain) for name, plain in zip(names, ran.stdout.splitlines(), strict=True)}
