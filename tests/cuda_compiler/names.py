"""Kernels' names as a reader would write them."""

import re
import subprocess
from collections.abc import Iterable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def _maths() -> list[str]:
    """The enumerators of Math in the order of their values, as in gemm_arithmetic.h."""
    text = (ROOT / "cuda_src" / "gemm_arithmetic.h").read_text()
    return [
        name.strip().removeprefix("k") for name in re.search(r"enum class Math \{(.*?)\}", text)[1].split(",")
    ]


def _readable(name: str, maths: list[str]) -> str:
    name = re.sub(r"^void ", "", name)
    depth = 0  # what follows the template's arguments are the function's
    for at, letter in enumerate(name):
        depth += (letter == "<") - (letter == ">")
        if letter == "(" and depth == 0 and not name.startswith("(anonymous namespace)", at):
            name = name[:at]
            break
    name = re.sub(r"\(anonymous namespace\)::|_GLOBAL__N__\w+::|\bconvgrad::(cuda::)?", "", name)
    name = re.sub(r"\(Math\)(\d+)", lambda match: maths[int(match[1])], name)
    return re.sub(r"\((?:unsigned )?(?:int|bool|long)\)(?=-?\d)", "", name).replace("> >", ">>")


def readable(mangled: Iterable[str]) -> dict[str, str]:
    """Each mangled name's function and template arguments, without namespaces and parameters.

    Raises:
      FileNotFoundError: there is no c++filt, which comes with binutils.
    """
    names = sorted(set(mangled))
    ran = subprocess.run(["c++filt"], input="\n".join(names), capture_output=True, text=True, check=True)
    maths = _maths()
    return {name: _readable(plain, maths) for name, plain in zip(names, ran.stdout.splitlines(), strict=True)}
