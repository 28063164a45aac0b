"""``plan``: which kernel serves each op of a layer, on the CPU or with CUDA, how, and why.

The facts come from the native plans (``plan_facts.h`` of ``cpu_src`` and ``cuda_src``); this module puts them
side by side. CUDA's plan is a pure function of the layer and the device's compute capability, so it needs no
GPU.
"""

from __future__ import annotations

import argparse
import json
import math
import re
from collections.abc import Iterator
from typing import Any

import numpy as np

from jax_convgrad.geometry import tied
from jax_convgrad.instruments import layer_text
from jax_convgrad.instruments.layer_text import Layer, parse_layer_or_pool
from jax_convgrad.primitives import targets
from jax_convgrad.table import Table

OPS = ("fprop", "dgrad", "wgrad", "bgrad")
BIAS_KERNEL = "vector"
"""The kernel that only bgrad has; the native plan gives it for any kernel but the reference."""
PLATFORMS = ("cpu", "cuda")
CAPABILITIES = range(7, 13)
"""The first numbers of the compute capabilities that CUDA has a plan for, from Volta to Blackwell."""
CAPABILITY = 9
"""Hopper's compute capability, by its first number."""
DTYPES = {"float32": 4, "float64": 8, "bfloat16": 2, "float16": 2}  # bytes


def add_command(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds ``plan`` to the commands of ``python -m jax_convgrad``."""
    parser = commands.add_parser(
        "plan",
        description="Which kernel serves each op of a layer, on the CPU or with CUDA, and why.",
        epilog=(layer_text.__doc__ or "").partition("\nA pooling layer")[0],
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("layer", help='as in "8x56x56x64, 3x3, 64, pad 1"')
    parser.add_argument("--dtype", choices=DTYPES, default="float32")
    parser.add_argument("--platform", choices=PLATFORMS, default="cpu", help="cuda needs no GPU")
    parser.add_argument(
        "--capability",
        metavar="N",
        help="the GPU's compute capability, as 9 or 9.0, of which the first number counts "
        f"({CAPABILITY}: Hopper, the default)",
    )
    parser.add_argument(
        "--highest",
        action="store_true",
        help="at precision HIGHEST: no Winograd transforms on the CPU, no TF32 on CUDA",
    )
    parser.add_argument(
        "--kernel",
        default="auto",
        help='ask for one that plan prints: "tiled", "tiled.avx2", "vector"',
    )
    parser.add_argument("--json", action="store_true", help="the facts for programs")
    parser.set_defaults(run=lambda parsed: _run(parser, parsed))


def _run(parser: argparse.ArgumentParser, parsed: argparse.Namespace) -> int:
    if "cpu" not in targets.backends:
        parser.exit(1, "plan: there are no CPU kernels in this installation, whose module has the plans\n")
    if parsed.platform != "cuda" and parsed.capability is not None:
        parser.exit(2, "plan: --capability is for --platform cuda\n")
    try:
        layer = parse_layer_or_pool(parsed.layer)
        if layer.pool:
            raise ValueError("plan knows convolutions only; `python -m jax_convgrad explain` knows pooling")
        capability = CAPABILITY if parsed.capability is None else _capability(parsed.capability)
        plan = layer_plan(layer, parsed.dtype, parsed.kernel, parsed.platform, capability, not parsed.highest)
    except ValueError as error:
        parser.exit(2, f"plan: {error}\n")  # parser.error would print the usage before it
    print(json.dumps(plan, indent=2) if parsed.json else as_text(plan))
    return 0


def _capability(text: str) -> int:
    """The first number of a compute capability such as "9" or "8.6"."""
    match = re.fullmatch(r"(\d+)(\.\d+)?", text.strip(), re.ASCII)
    if not match or int(match[1]) not in CAPABILITIES:
        known = ", ".join(map(str, CAPABILITIES))
        raise ValueError(f"--capability {text!r} should be one of {known}, or such a number as 9.0 or 8.6")
    return int(match[1])


def layer_plan(
    layer: Layer,
    dtype: str = "float32",
    kernel: str = "auto",
    platform: str = "cpu",
    capability: int = CAPABILITY,
    below_highest: bool = True,
) -> dict[str, Any]:
    """The facts of each op by name; an op that the kernel does not serve has only ``not_served``.

    Args:
      layer: a convolution.
      dtype: one of ``DTYPES``.
      kernel: "auto", or a name that the plan gives; on the CPU, an instruction set may follow: "tiled.avx2".
      platform: "cpu" or "cuda".
      capability: for "cuda", the first number of the device's compute capability.
      below_highest: whether ``precision`` is below HIGHEST, as JAX's default is. Then the CPU may use
        "winograd", and CUDA may multiply float32 as TF32.

    Raises:
      ValueError: there is no such kernel, or it serves no convolution of the layer; "vector" has to serve
        bgrad.
    """
    module = targets.backends["cpu"].module
    size = DTYPES[dtype]
    sizes = {
        "filter": math.prod(layer.w_shape) * size,
        "activations": (math.prod(layer.x_shape) + math.prod(layer.y_shape)) * size,
    }
    ops: dict[str, Any] = {}
    for op in OPS:
        try:
            facts = _facts(op, kernel, _problem(layer, dtype), platform, capability, below_highest)
        except ValueError as error:
            ops[op] = {"not_served": str(error)}
            continue
        facts["flops"] = flops(layer, op)
        for name, of in sizes.items():
            facts[f"workspace_share_of_{name}"] = facts["workspace_bytes"] / of
        ops[op] = facts
    needed = ["bgrad"] if _is_of_bias(kernel) else [op for op in OPS if op != "bgrad"]
    if all("not_served" in ops[op] for op in needed):
        why = ops[needed[0]]["not_served"]
        # The native plan lists the kernels of convolutions.
        raise ValueError(f'{why}, and for bgrad "{BIAS_KERNEL}"' if ': kernel is "' in why else why)
    device = {"instruction_sets": module.instruction_sets()}
    if platform == "cuda":
        device = {"capability": capability, "tf32": below_highest}
    return {
        "layer": str(layer),
        "dtype": dtype,
        "platform": platform,
        "below_highest": below_highest,
        **device,
        "filter_bytes": sizes["filter"],
        "activations_bytes": sizes["activations"],
        "ops": ops,
    }


def _is_of_bias(kernel: str) -> bool:
    return kernel.partition(".")[0] == BIAS_KERNEL


def _facts(
    op: str, kernel: str, problem: dict[str, Any], platform: str, capability: int, below_highest: bool
) -> dict[str, Any]:
    if _is_of_bias(kernel) and op != "bgrad":
        raise ValueError(f'jax_convgrad: the kernel "{BIAS_KERNEL}" serves bgrad alone')
    module = targets.backends["cpu"].module
    if platform == "cuda":
        facts = module.cuda_plan(op, kernel, **problem, tf32=below_highest, capability=capability)
        # The call's workspace suffices for every GPU; this kernel may need less of it.
        alone = module.cuda_plan(op, facts["kernel"], **problem, tf32=below_highest, capability=capability)
        facts["kernel_workspace_bytes"] = alone["workspace_bytes"]
    else:
        facts = module.plan(op, kernel, **problem, below_highest=below_highest)
        if facts["kernel"] == "winograd" and facts["reason"] != "asked for":
            at_highest = module.plan(op, kernel, **problem, below_highest=False)
            facts["kernel_at_highest"] = at_highest["kernel"]
    return facts | ({"reason": "asked for"} if _is_of_bias(kernel) else {})


def flops(layer: Layer, op: str) -> int:
    """Floating-point operations that the op's sum asks for, whatever a kernel does.

    They are two, a product and a sum, for each pair of a tap and an output that is tied to an input, channel
    of a group, output channel and example. What meets padding or lies between dilated inputs counts nothing.
    bgrad has one for each element of dy.
    """
    if op == "bgrad":
        return math.prod(layer.y_shape)
    pairs = math.prod(tied(axis) for axis in layer.geometry.axes)
    return 2 * layer.batch * pairs * (layer.in_channels // layer.groups) * layer.out_channels


def _problem(layer: Layer, dtype: str) -> dict[str, Any]:
    geometry = layer.geometry
    return {
        "dtype": np.dtype(dtype).name if dtype != "bfloat16" else dtype,
        "batch": layer.batch,
        "in_channels": layer.in_channels,
        "out_channels": layer.out_channels,
        "groups": layer.groups,
        "axes": [
            (a.input, a.taps, a.output, a.stride, a.pad_lo, a.input_dilation, a.filter_dilation)
            for a in geometry.axes
        ],
    }


def as_text(plan: dict[str, Any]) -> str:
    """A table with a column for each op, and below it the reasons."""
    ops = plan["ops"]
    columns = [{} if "not_served" in facts else _column(facts) for facts in ops.values()]
    rows = [
        (label, *(column.get(label) or "-" for column in columns))
        for label in max(columns, key=len)
        if any(column.get(label) for column in columns)
    ]
    if plan["platform"] == "cuda":
        machine = f"CUDA of compute capability {plan['capability']}"
        if plan["dtype"] == "float32":
            machine += ", as TF32" if plan["tf32"] else ", in full float32"
    else:
        machine = f"CPU with {', '.join(plan['instruction_sets'])}"
        if not plan["below_highest"]:
            machine += ", at precision HIGHEST"
    also = plan["platform"] == "cpu" and "cuda" in targets.backends
    cuda = ["CUDA's kernels are there too: --platform cuda gives their plan."] if also else []
    return "\n".join(
        [
            f"{plan['layer']}   {plan['dtype']}, {machine}",
            f"filter {_bytes(plan['filter_bytes'])}, activations {_bytes(plan['activations_bytes'])}",
            "",
            str(Table(("", *ops), rows)),
            "",
            *(f"{op}: {line}" for op, facts in ops.items() for line in _because(facts)),
            *cuda,
        ]
    )


def _because(facts: dict[str, Any]) -> Iterator[str]:
    if "not_served" in facts:
        yield facts["not_served"]
    else:
        yield f"{facts['kernel']}, {facts['reason']}"
        if "kernel_at_highest" in facts:
            yield f"precision HIGHEST takes {facts['kernel_at_highest']}, whose rounding errors are smaller"
        if facts.get("packed") is False and facts["workspace_bytes"]:
            yield "the workspace is for another batch, whose kernel packs or transforms the filter"
        needed = facts.get("kernel_workspace_bytes", facts["workspace_bytes"])
        if needed < facts["workspace_bytes"]:
            yield (
                "the workspace suffices for every GPU that may run the program: "
                f"{facts['kernel']} needs {_bytes(needed)}, the kernel of another GPU needs more"
            )


def _column(facts: dict[str, Any]) -> dict[str, str]:
    """The cells of an op's column; "" in rows that the kernel has no fact for."""
    tile = ""
    if "tile_pixels" in facts:
        tile = f"{facts['tile_pixels']} pixels x {facts['tile_channels']} channels"
    elif "tile_rows" in facts:
        tile = f"{facts['tile_rows']} x {facts['tile_channels']} channels"
    elif "tile_products" in facts:
        tile = f"{facts['tile_results']} pixels, {facts['tile_products']} products"
    packed = {True: "packed", False: "read in place"}
    if facts["kernel"] == "winograd":
        packed = {True: "transformed once", False: "transformed by task"}
    shares = {}
    for of in ("filter", "activations"):
        percent = 100 * facts[f"workspace_share_of_{of}"]
        share = f"{percent:.{0 if percent >= 100 else 1}f} %"
        shares[f"  of the {of}"] = share if facts["workspace_bytes"] else ""
    return {
        "kernel": facts["kernel"],
        "instructions": facts.get("instruction_set", ""),
        "arithmetic": facts.get("arithmetic", ""),
        "tile": tile,
        "tiles": f"{facts['tiles']}, {facts['block_tiles']} at a time" if "tiles" in facts else "",
        "lanes": f"along {facts['lanes_along']}" if "lanes_along" in facts else str(facts.get("lanes", "")),
        "phases": str(facts.get("phases", "")),
        "panels": str(facts.get("panels", "")),
        "filter": packed[facts["packed"]] if "packed" in facts else "",
        "boxes": str(facts.get("boxes", "")),
        "strips of a row": str(facts.get("strips", "")),
        "rows buffered": str(facts.get("buffered_rows", "")),
        "partial sums": str(facts.get("partial_sums", "")),
        "tasks": ", then ".join(map(str, facts.get("tasks", ()))),
        "operations": _flops(facts["flops"]),
        "workspace": _bytes(facts["workspace_bytes"]),
        **shares,
    }


def _flops(count: int) -> str:
    for unit, size in (("GFLOP", 10**9), ("MFLOP", 10**6), ("kFLOP", 10**3)):
        if count >= size:
            return f"{count / size:.3g} {unit}"
    return f"{count} FLOP"


def _bytes(count: int) -> str:
    for unit, size in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if round(count / size, 1) >= 1:
            return f"{count / size:.{1 if count < 100 * size else 0}f} {unit}"
    return f"{count} B"
