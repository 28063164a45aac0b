"""Batch norm's FFI targets, called directly: its formulas in jax.numpy; what they refuse."""

import jax
import numpy as np
import pytest

from jax_convgrad.primitives import targets
from jax_convgrad.primitives.define import lax_forms
from jax_convgrad.primitives.norm_primitives import moments_p, norm_gradient_p, norm_sums_p, normalize_p

F32, F64, I32, BF16 = np.dtype("float32"), np.dtype("float64"), np.dtype("int32"), jax.numpy.bfloat16
X, CHANNELS, WORKSPACE = (2, 5, 300, 24), (2, 24), ((1 << 16,), np.dtype("uint8"))
ATTRIBUTES = {"channel_axis": np.int64(3), "activation": "relu", "kernel": "auto"}
VECTOR = (CHANNELS, F32)

# target: the primitive, operands and results, all of them valid
CALLS = {
    "norm_moments": (moments_p, [(X, F32)], [VECTOR, VECTOR, WORKSPACE]),
    "normalize": (normalize_p, [(X, F32), *[VECTOR] * 3], [(X, F32)]),
    "norm_sums": (norm_sums_p, [(X, F32), (X, F32), *[VECTOR] * 3], [VECTOR, VECTOR, WORKSPACE]),
    "norm_gradient": (norm_gradient_p, [(X, F32), (X, F32), *[VECTOR] * 5], [(X, F32)]),
}


def arrays(operands):
    random = np.random.default_rng(0)
    return [np.asarray(random.standard_normal(shape), dtype) for shape, dtype in operands]


def call(target, operands, results, attributes):
    of_results = [jax.ShapeDtypeStruct(*result) for result in results]
    made = jax.ffi.ffi_call(targets.backends["cpu"].prefix + target, of_results)
    return jax.block_until_ready(made(*arrays(operands), **attributes))


@pytest.mark.parametrize("kernel", ["auto", "reference", "vector.plain"])
@pytest.mark.parametrize("target", CALLS)
def test_the_calls_below_do_fit(target, kernel):
    primitive, operands, results = CALLS[target]
    made = call(target, operands, results, ATTRIBUTES | {"kernel": kernel})
    params = {"channel_axis": 3} | ({} if primitive is moments_p else {"activation": "relu"})
    expected = lax_forms[primitive](*arrays(operands), **params)
    for result, exact in zip(made, expected, strict=False):
        np.testing.assert_allclose(result, exact, rtol=1e-4, atol=1e-3)


def changed(target, *, operands=(), results=(), attributes=(), drop=()):
    _, old_operands, old_results = CALLS[target]
    new_operands = [dict(operands).get(at, old) for at, old in enumerate(old_operands)]
    new_results = [dict(results).get(at, old) for at, old in enumerate(old_results)]
    new_attributes = {k: v for k, v in {**ATTRIBUTES, **dict(attributes)}.items() if k not in drop}
    return target, new_operands, new_results, new_attributes


def rows():
    for name, values in {
        "channel_axis": [np.int64(0), np.int64(4), np.int64(-1), "last"],
        "activation": ["silu", "", np.int64(1)],
        "kernel": ["fastest", np.int64(0)],
    }.items():
        for value in values:
            yield f"{name}={value!r}", changed("normalize", attributes={name: value})
        yield f"no {name}", changed("norm_sums", drop=[name])
    for target in ("normalize", "norm_sums", "norm_gradient"):
        last = len(CALLS[target][1]) - 1
        for what, vector in {
            "size": ((2, 23), F32),
            "groups": ((1, 24), F32),
            "rank": ((48,), F32),
            "dtype": (CHANNELS, F64),
            "narrow": (CHANNELS, BF16),
        }.items():
            yield f"{target}: a vector's {what}", changed(target, operands={last: vector})
        target_, operands, results, attributes = changed(target)
        yield f"{target}: a vector too few", (target_, operands[:-1], results, attributes)
        yield f"{target}: a vector too many", (target_, [*operands, VECTOR], results, attributes)
    yield "y's shape", changed("normalize", results={0: ((2, 5, 299, 24), F32)})
    yield "y's dtype", changed("normalize", results={0: (X, F64)})
    yield "dy's shape", changed("norm_sums", operands={1: ((2, 5, 299, 24), F32)})
    yield "dy's dtype", changed("norm_gradient", operands={1: (X, BF16)})
    yield "x of int32", changed("norm_moments", operands={0: (X, I32)})
    yield "x of rank 1", changed("norm_moments", operands={0: ((24,), F32)})
    yield "mean's shape", changed("norm_moments", results={0: ((24,), F32)})
    yield "var's dtype", changed("norm_moments", results={1: (CHANNELS, F64)})
    yield "small workspace", changed("norm_moments", results={2: ((8,), WORKSPACE[1])})
    yield "workspace of float32", changed("norm_sums", results={2: ((1 << 16,), F32)})
    yield "no workspace", ("norm_moments", [(X, F32)], [VECTOR, VECTOR], ATTRIBUTES)


@pytest.mark.parametrize("row", [pytest.param(row, id=f"{row[0]}: {name}") for name, row in rows()])
def test_refused(row):
    with pytest.raises(jax.errors.JaxRuntimeError, match="INVALID_ARGUMENT"):
        call(*row)


def test_no_rows_are_no_moments():
    """The handler answers a call that an exported program makes with an empty batch."""
    results = [VECTOR, VECTOR, WORKSPACE]
    mean, var, _ = call("norm_moments", [((2, 0, 3, 24), F32)], results, ATTRIBUTES)
    assert np.isnan(mean).all() and np.isnan(var).all()
