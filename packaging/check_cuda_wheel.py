"""Checks dist/jax_convgrad_cuda13-*.whl for what auditwheel does not see: make cuda-wheel.

auditwheel judges symbols by their versions. The libstdc++ that is linked in may ask for symbols of a glibc
that is newer than the one that zig links for (cuda_src/package/zig_link.cmake). Those have no version, and
the module does not load where they are missing.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path


def unknown_symbols(module: Path) -> list[str]:
    """The symbols that the module needs, and that neither Python nor a version of a library has."""
    nm = ["nm", "--dynamic", "--undefined-only", "--with-symbol-versions", module]
    lines = subprocess.run(nm, capture_output=True, text=True, check=True).stdout.splitlines()
    needed = (line.split()[-2:] for line in lines)
    return [name for kind, name in needed if kind == "U" and "@" not in name and not re.match("_?Py", name)]


def check(wheel: Path) -> list[str]:
    """What is wrong with the wheel, in sentences."""
    with zipfile.ZipFile(wheel) as archive, tempfile.TemporaryDirectory() as folder:
        modules = [
            name for name in archive.namelist() if re.fullmatch(r"jax_convgrad_cuda13/_cuda\..*so", name)
        ]
        if len(modules) != 1:
            return [f"{wheel.name} has the modules {modules}, and should have one"]
        unknown = unknown_symbols(Path(archive.extract(modules[0], folder)))
    return [f"{wheel.name} needs {', '.join(unknown)}, which an older glibc may not have"] if unknown else []


if __name__ == "__main__":
    sys.exit("\n".join(fault for wheel in sys.argv[1:] for fault in check(Path(wheel))) or 0)
