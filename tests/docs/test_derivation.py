"""The numbers and claims of docs/derivation.md, recomputed."""

import ast
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jax_convgrad import conv

TEXT = (Path(__file__).parents[2] / "docs" / "derivation.md").read_text()


def worked_examples():
    for block in re.findall(r"```text\n(.*?)```", TEXT, re.DOTALL):
        assignments = re.findall(r"(\w+) *= *(\[.*\]|-?\d+)", block)
        yield {name: ast.literal_eval(value) for name, value in assignments}


EXAMPLES = list(worked_examples())
IDS = ["stride1", "stride2", "two_axes"]


def test_all_examples_are_found():
    names = {"stride", "pad_lo", "pad_hi", "X", "W", "Y", "dY", "dW", "dX"}
    assert [(example["stride"], np.ndim(example["X"])) for example in EXAMPLES] == [(1, 1), (2, 1), (1, 2)]
    assert all(set(example) == names for example in EXAMPLES)


def tied(example):
    """Every triple (i, r, o) with o*stride + r - pad_lo = i along each axis, found by trying all."""
    return [
        (i, r, o)
        for i in np.ndindex(np.shape(example["X"]))
        for r in np.ndindex(np.shape(example["W"]))
        for o in np.ndindex(np.shape(example["Y"]))
        if all(o[axis] * example["stride"] + r[axis] - example["pad_lo"] == i[axis] for axis in range(len(i)))
    ]


@pytest.mark.parametrize("example", EXAMPLES, ids=IDS)
def test_examples_by_the_sums(example):
    X, W, dY = (np.array(example[name]) for name in ("X", "W", "dY"))
    Y, dX, dW = np.zeros_like(dY), np.zeros_like(X), np.zeros_like(W)
    for i, r, o in tied(example):
        Y[o] += X[i] * W[r]
        dX[i] += dY[o] * W[r]
        dW[r] += X[i] * dY[o]
    assert (Y.tolist(), dX.tolist(), dW.tolist()) == (example["Y"], example["dX"], example["dW"])
    assert np.vdot(X, dX) == np.vdot(W, dW) == np.vdot(Y, dY)

    padded = np.array(X.shape) + example["pad_lo"] + example["pad_hi"]
    assert Y.shape == tuple((padded - W.shape) // example["stride"] + 1)


@pytest.mark.parametrize("example", EXAMPLES, ids=IDS)
def test_examples_by_the_kernels(example):
    x, dy = (jnp.array(example[name], jnp.float32)[None, ..., None] for name in ("X", "dY"))
    w = jnp.array(example["W"], jnp.float32)[..., None, None]
    padding = [(example["pad_lo"], example["pad_hi"])] * np.ndim(example["X"])
    y, vjp = jax.vjp(lambda x, w: conv(x, w, stride=example["stride"], padding=padding), x, w)
    dx, dw = vjp(dy)
    # Small whole numbers, so that float32 represents every sum exactly.
    np.testing.assert_array_equal(y[0, ..., 0], example["Y"])
    np.testing.assert_array_equal(dx[0, ..., 0], example["dX"])
    np.testing.assert_array_equal(dw[..., 0, 0], example["dW"])


@pytest.mark.parametrize(
    "example, array, index",
    [
        (EXAMPLES[0], "dW", (1,)),
        (EXAMPLES[0], "dX", (1,)),
        (EXAMPLES[1], "dX", (1,)),
        (EXAMPLES[2], "dX", (1, 2)),
        (EXAMPLES[2], "dW", (0, 1)),
    ],
)
def test_the_elements_in_the_text_are_spelled_out_term_by_term(example, array, index):
    """The text writes the element as products of whole numbers, with each of its terms."""
    X, W, dY = (np.array(example[name]) for name in ("X", "W", "dY"))
    own = [(i, r, o) for i, r, o in tied(example) if (i if array == "dX" else r) == index]
    terms = sorted(sorted((int(X[i] if array == "dW" else W[r]), int(dY[o]))) for i, r, o in own)
    where = ",".join(map(str, index))
    written = re.findall(rf"partial {array[1]}\[{where}\] =\s*([^=]*\\cdot[^=]*) = (-?\d+)\$", TEXT)
    found = [
        (
            sorted(sorted(map(int, pair)) for pair in re.findall(r"(-?\d+)\)?\\cdot ?\(?(-?\d+)", sum_)),
            int(total),
        )
        for sum_, total in written
    ]
    assert (terms, np.array(example[array])[index]) in found


def test_the_first_six_is_the_number_in_the_text():
    assert "here $6$" in TEXT
    assert np.dot(EXAMPLES[0]["X"], EXAMPLES[0]["dX"]) == 6


def test_stretched_with_zeros_it_is_a_convolution_with_the_flipped_filter():
    example = EXAMPLES[1]
    stretched = [1, 0, -2, 0, 3]
    assert f"${stretched}$" in TEXT
    assert stretched[:: example["stride"]] == example["dY"]
    taps, pad_lo = len(example["W"]), example["pad_lo"]
    full = np.convolve(stretched, example["W"])  # np.convolve flips the filter
    assert full[pad_lo : pad_lo + len(example["X"])].tolist() == example["dX"]
    assert len(full) == len(stretched) + taps - 1


def test_lax_also_gives_a_tied_maximum_to_the_first():
    def pooled(x):
        return jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, (2, 2), (2, 2), "VALID")

    x = jnp.array([[1.0, 3.0], [3.0, 3.0]])
    np.testing.assert_array_equal(jax.grad(lambda x: pooled(x).sum())(x), [[0, 1], [0, 0]])
