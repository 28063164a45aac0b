"""How many blocks of a kernel a multiprocessor holds at a time, by the rules of the CUDA programming guide.

The numbers are those of its table of technical specifications for each compute capability, and the units of
allocation those of the occupancy calculator: registers come in 256 for a warp and are spread over four
schedulers, shared memory comes in 128 bytes, of which the system keeps 1 KiB a block.
"""

from typing import NamedTuple

WARP = 32
REGISTERS = 65536  # of a multiprocessor
REGISTER_UNIT = 256  # that a warp gets
SCHEDULERS = 4
SHARED_UNIT = 128
RESERVED_SHARED = 1024  # a block


class Device(NamedTuple):
    """The limits of a multiprocessor that differ among devices."""

    threads: int
    blocks: int
    shared_bytes: int


DEVICES = {
    "sm_80": Device(threads=2048, blocks=32, shared_bytes=164 << 10),
    "sm_86": Device(threads=1536, blocks=16, shared_bytes=100 << 10),
    "sm_89": Device(threads=1536, blocks=24, shared_bytes=100 << 10),
    "sm_90a": Device(threads=2048, blocks=32, shared_bytes=228 << 10),
}


def _whole(amount: int, unit: int) -> int:
    return -(-amount // unit) * unit


def blocks(architecture: str, threads: int, registers: int, shared_bytes: int) -> int:
    """Blocks of so many threads, registers a thread and bytes of shared memory; 0 where none fits."""
    device = DEVICES[architecture]
    warps = -(-threads // WARP)
    a_warp = _whole(max(registers, 1) * WARP, REGISTER_UNIT)
    by_registers = REGISTERS // SCHEDULERS // a_warp * SCHEDULERS // warps
    by_shared = device.shared_bytes // _whole(shared_bytes + RESERVED_SHARED, SHARED_UNIT)
    return min(device.threads // WARP // warps, device.blocks, by_registers, by_shared)


def occupancy(architecture: str, threads: int, registers: int, shared_bytes: int) -> float:
    """Of the warps that a multiprocessor can hold, how many it does."""
    held = blocks(architecture, threads, registers, shared_bytes) * -(-threads // WARP)
    return held * WARP / DEVICES[architecture].threads
