"""Writes docs/cuda_kernels.md: registers, shared memory and occupancy of every CUDA kernel.

Usage: make cuda-table

Registers and static shared memory are ptxas's, from the package's own build. Threads and dynamic shared
memory are those of the launches, which the emulator's module lists without running them (sweep.py).
"""

import re
import sys
from collections import defaultdict
from collections.abc import Iterable
from typing import NamedTuple

from names import readable
from occupancy import blocks, occupancy
from ptxas import ROOT, Compiled, Kernel, compiled, sources
from sweep import configurations

ARCHITECTURES = ("sm_80", "sm_90a")
# Folders whose kernels have a row each; in other folders a row is for all instances of a type.
ONE_BY_ONE = ("gemm", "wgmma", "few_channels", "tiled")
HEAD = """\
# Resources of the CUDA kernels

Registers, shared memory and occupancy of each kernel, as nvcc {version} compiles it for compute capability
8.0 (A100) and 9.0 (H100, H200). The numbers are computed, not measured: ptxas reports registers and static
shared memory; threads and dynamic shared memory are those of the launches over a sweep of problems; the
rules of the CUDA programming guide give the blocks per multiprocessor and the occupancy. `make cuda-table`
writes this file.

Two numbers with a slash are for 8.0 / 9.0. *Shared* is in bytes, static and dynamic together, for the launch
with the lowest occupancy. *Blocks* is the number of blocks that a multiprocessor holds at a time, and
*occupancy* their share of its warps. If a row stands for several instances (vector widths, runs and
windows), it shows the one with the lowest occupancy. The wgmma kernels are empty for 8.0, which never
launches them.
"""


class Row(NamedTuple):
    """A row of the table: a kernel, or the one with the lowest occupancy out of several."""

    name: str
    instances: int
    registers: tuple[int, ...]
    threads: int
    shared_bytes: int
    blocks: tuple[int, ...]
    occupancy: tuple[float, ...]


def row(name: str, kernels: dict[str, Kernel], launches: Iterable[tuple[int, int]]) -> Row:
    """The row of one instance, with its launch of the lowest occupancy; ``kernels`` by architecture."""

    def resources(launch: tuple[int, int]) -> Row:
        threads, dynamic = launch
        each = [(a, threads, kernels[a].registers, kernels[a].shared_bytes + dynamic) for a in ARCHITECTURES]
        return Row(
            name,
            1,
            tuple(kernels[a].registers for a in ARCHITECTURES),
            threads,
            max(shared for *_, shared in each),
            tuple(blocks(*one) for one in each),
            tuple(occupancy(*one) for one in each),
        )

    return min(map(resources, launches), key=lambda row: (row.occupancy[::-1], -row.shared_bytes))


def _kind(name: str) -> str:
    """The function and its first argument, which all instances of one type share."""
    return re.sub(r"<([^,>]+).*", r"<\1, …>", name)


def rows_of(file: Compiled, launched: dict[str, set[tuple[int, int]]]) -> tuple[list[Row], list[str]]:
    """The rows of one file, and the kernels that the sweep never launches."""
    names = readable(kernel.name for kernel in file.kernels)
    instances: dict[str, dict[str, Kernel]] = defaultdict(dict)
    for kernel in file.kernels:
        instances[names[kernel.name]][kernel.architecture] = kernel
    rows, missing = [], []
    for name, kernels in sorted(instances.items()):
        if name in launched:
            rows.append(row(name, kernels, launched[name]))
        else:
            missing.append(name)
    if file.folder not in ONE_BY_ONE:
        kinds = defaultdict(list)
        for one in rows:
            kinds[_kind(one.name)].append(one)
        rows = [
            min(ones, key=lambda row: row.occupancy[::-1])._replace(name=kind, instances=len(ones))
            if len(ones) > 1
            else ones[0]
            for kind, ones in kinds.items()
        ]
    return rows, missing


def _both(values: Iterable[object]) -> str:
    texts = [str(value) for value in values]
    return texts[0] if len(set(texts)) == 1 else " / ".join(texts)


def table(rows: Iterable[Row]) -> str:
    """In Markdown."""
    lines = ["| kernel | instances | registers | threads | shared | blocks | occupancy |"]
    lines += ["|---|---|---|---|---|---|---|"]
    for one in rows:
        percent = _both(f"{share:.0%}" for share in one.occupancy)
        columns = (
            one.instances,
            _both(one.registers),
            one.threads,
            one.shared_bytes,
            _both(one.blocks),
            percent,
        )
        lines.append(f"| `{one.name}` | " + " | ".join(map(str, columns)) + " |")
    return "\n".join(lines)


def main() -> None:
    """Write the file; exit with 1 if the sweep does not launch a kernel."""
    version = sys.argv[1]
    found = configurations()
    names = readable(found)
    launched: dict[str, set[tuple[int, int]]] = defaultdict(set)
    for mangled, ways in found.items():
        launched[names[mangled]] |= ways
    parts, missing = [HEAD.format(version=version)], []
    for source in sources():
        file = compiled(source)
        rows, unmet = rows_of(file, launched)
        parts.append(f"## {file.label}\n\n{table(rows)}\n")
        missing += unmet
    (ROOT / "docs" / "cuda_kernels.md").write_text("\n".join(parts))
    if missing:
        sys.exit("the sweep does not launch: " + ", ".join(missing))


if __name__ == "__main__":
    main()
