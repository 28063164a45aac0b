"""Computes how many blocks of a kernel a multiprocessor holds, by the rules of the CUDA programming guide.

The limits are from the guide's table of technical specifications per compute capability, and the units of
allocation from the occupancy calculator: a warp gets registers in units of 256, spread over four schedulers;
shared memory comes in units of 128 bytes, and the system reserves 1 KiB per block.
"""

from typing import NamedTuple

WARP = 32
REGISTERS = 65536  # per multiprocessor
REGISTER_UNIT = 256  # per warp
SCHEDULERS = 4
SHARED_UNIT = 128
RESERVED_SHARED = 1024  # per block


class Device(NamedTuple):
    """A multiprocessor's limits that differ between devices."""

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
    """The number of blocks for these threads, registers per thread and shared bytes; 0 if none fits."""
    device = DEVICES[architecture]
    warps = -(-threads // WARP)
    a_warp = _whole(max(registers, 1) * WARP, REGISTER_UNIT)
    by_registers = REGISTERS // SCHEDULERS // a_warp * SCHEDULERS // warps
    by_shared = device.shared_bytes // _whole(shared_bytes + RESERVED_SHARED, SHARED_UNIT)
    return min(device.threads // WARP // warps, device.blocks, by_registers, by_shared)


def occupancy(architecture: str, threads: int, registers: int, shared_bytes: int) -> float:
    """The share of the multiprocessor's warps that it holds."""
    held = blocks(architecture, threads, registers, shared_bytes) * -(-threads // WARP)
    return held * WARP / DEVICES[architecture].threads
