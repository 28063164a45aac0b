"""The CPU's kernels by name: which of them support a problem, and how to select one in targets.py."""

import jax

from jax_convgrad.geometry import Axis, ConvGeometry
from jax_convgrad.layers.problem import dimensions
from jax_convgrad.primitives import ffi, targets
from jax_convgrad.primitives.conv_spec import ConvSpec

CPU = targets.backends["cpu"]
ISAS = CPU.module.instruction_sets()


def has_code_of_its_own(name, dtype):
    """Whether another instruction set runs the same code: only bf16 has its own on avx512_bf16."""
    return not name.endswith(".avx512_bf16") or dtype == "bfloat16"


def is_grouped(case):
    """Whether "grouped" reports that it supports the case, for f32."""
    _, w_order, _ = case.to_canonical
    group_in, features = (case.w[d] for d in w_order[-2:])
    return case.groups > 1 and max(group_in, features // case.groups) <= 8


def is_depthwise(case):
    """Whether "depthwise" reports that it supports the case."""
    _, w_order, _ = case.to_canonical
    group_in, features = (case.w[d] for d in w_order[-2:])
    return case.groups > 1 and group_in == 1 and features == case.groups


def is_planar(case):
    """Whether "planar" reports that it supports the case."""
    _, w_order, _ = case.to_canonical
    group_in, features = (case.w[d] for d in w_order[-2:])
    inner = case.axes[-1]
    return (
        all(a.taps == 1 for a in case.axes[:-1])
        and max(group_in * case.groups, features) <= 8
        and inner.stride == inner.input_dilation == 1
    )


def kernels(case):
    families = ["tiled", "dot", "pairs"]
    if is_grouped(case):
        families.append("grouped")
    if is_depthwise(case):
        families.append("depthwise")
    if is_planar(case):
        families.append("planar")
    return ["reference", *(f"{family}.{isa}" for family in families for isa in ISAS)]


def spec_of(case, precision=None):
    axes = (
        Axis(a.input, a.taps, a.output, a.stride, a.pad_lo, a.input_dilation, a.filter_dilation)
        for a in case.axes
    )
    dims = dimensions(case.x, case.w, case.order, ("x", "w"))
    return ConvSpec(ConvGeometry(tuple(axes), case.groups), dims, precision)


def run_all(case, names, arrays, platforms):
    """The results y, dx and dw of every kernel in every dtype, in one program to save compiling time."""
    spec = spec_of(case)

    @jax.jit
    def run(arrays):
        results = {}
        for dtype, (x, w, dy) in arrays.items():
            for name in names:
                if not has_code_of_its_own(name, dtype):
                    continue
                on = platforms(name)
                results[dtype, name] = {
                    "y": ffi.fprop(on, x, w, spec),
                    "dx": ffi.dgrad(on, dy, w, spec),
                }
                if not name.startswith(("dot", "planar")):
                    results[dtype, name]["dw"] = ffi.wgrad(on, x, dy, spec)
        return results

    return run(arrays)
