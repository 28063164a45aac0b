"""The numbers and claims of docs/derivation.md, recomputed."""

import ast
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jax_convgrad import conv

TEXT = (Path(__file__).parent.parent / "docs" / "derivation.md").read_text()


def worked_examples():
    for block in re.findall(r"```text\n(.*?)```", TEXT, re.DOTALL):
        assignments = re.findall(r"(\w+) *= *(\[[^]]*\]|-?\d+)", block)
        yield {name: ast.literal_eval(value) for name, value in assignments}


EXAMPLES = list(worked_examples())
IDS = [f"stride{example['stride']}" for example in EXAMPLES]


def test_both_examples_are_found():
    names = {"stride", "pad_lo", "pad_hi", "X", "W", "Y", "dY", "dW", "dX"}
    assert IDS == ["stride1", "stride2"]
    assert all(set(example) == names for example in EXAMPLES)


def tied(example):
    """Every triple (i, r, o) with o*stride + r - pad_lo = i, by trying them all."""
    return [
        (i, r, o)
        for i in range(len(example["X"]))
        for r in range(len(example["W"]))
        for o in range(len(example["Y"]))
        if o * example["stride"] + r - example["pad_lo"] == i
    ]


@pytest.mark.parametrize("example", EXAMPLES, ids=IDS)
def test_examples_by_the_sums(example):
    X, W, dY = example["X"], example["W"], example["dY"]
    Y, dX, dW = [0] * len(dY), [0] * len(X), [0] * len(W)
    for i, r, o in tied(example):
        Y[o] += X[i] * W[r]
        dX[i] += dY[o] * W[r]
        dW[r] += X[i] * dY[o]
    assert (Y, dX, dW) == (example["Y"], example["dX"], example["dW"])
    assert np.dot(X, dX) == np.dot(W, dW) == np.dot(Y, dY)

    padded = len(X) + example["pad_lo"] + example["pad_hi"]
    assert len(Y) == (padded - len(W)) // example["stride"] + 1


@pytest.mark.parametrize("example", EXAMPLES, ids=IDS)
def test_examples_by_the_kernels(example):
    x = jnp.array(example["X"], jnp.float32).reshape(1, -1, 1)
    w = jnp.array(example["W"], jnp.float32).reshape(-1, 1, 1)
    dy = jnp.array(example["dY"], jnp.float32).reshape(1, -1, 1)
    padding = [(example["pad_lo"], example["pad_hi"])]
    y, vjp = jax.vjp(lambda x, w: conv(x, w, stride=example["stride"], padding=padding), x, w)
    dx, dw = vjp(dy)
    # Small whole numbers: float32 holds every sum exactly.
    np.testing.assert_array_equal(y.ravel(), example["Y"])
    np.testing.assert_array_equal(dx.ravel(), example["dX"])
    np.testing.assert_array_equal(dw.ravel(), example["dW"])


def test_the_first_six_is_the_number_in_the_text():
    assert "here $6$" in TEXT
    assert np.dot(EXAMPLES[0]["X"], EXAMPLES[0]["dX"]) == 6


def test_stretched_with_zeros_it_is_a_convolution_with_the_flipped_filter():
    example = EXAMPLES[1]
    stretched = [1, 0, -2, 0, 3]
    assert f"${stretched}$" in TEXT
    assert stretched[:: example["stride"]] == example["dY"]
    taps, pad_lo = len(example["W"]), example["pad_lo"]
    full = np.convolve(stretched, example["W"])  # convolve flips
    assert full[pad_lo : pad_lo + len(example["X"])].tolist() == example["dX"]
    assert len(full) == len(stretched) + taps - 1


def test_lax_also_gives_a_tied_maximum_to_the_first():
    def pooled(x):
        return jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, (2, 2), (2, 2), "VALID")

    x = jnp.array([[1.0, 3.0], [3.0, 3.0]])
    np.testing.assert_array_equal(jax.grad(lambda x: pooled(x).sum())(x), [[0, 1], [0, 0]])
