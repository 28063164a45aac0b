"""`install()`: traces contain lax's own convolution, and it is compiled to our kernels."""

import dataclasses
import re
from functools import partial

import jax
import jax.numpy as jnp
import meshes
import numpy as np
import pytest
from backends import runs
from conv_cases import BY_NAME, CASES, FEW, has_outputs
from jax import export, lax
from jax.interpreters import mlir
from jax.sharding import AbstractMesh, AxisType, NamedSharding
from jax.sharding import PartitionSpec as P
from lax_functions import FUNCTIONS, NO_SUCH_DERIVATIVE, WAYS, W, X, assert_same, layer, scalar
from lowered_programs import FOREIGN_HLO, FOREIGN_STABLEHLO, primitives

import jax_convgrad as jc
from jax_convgrad.primitives import ffi, targets


@pytest.fixture(scope="module", autouse=True)
def _uninstalled_at_the_end():
    yield
    jc.uninstall()


@pytest.fixture
def installed():
    jc.install()


def gradients_text(platform):
    """The text of the programs exported for a platform, by name and without source locations."""
    gradient = jax.jit(jax.grad(scalar(layer), (0, 1)))
    text = export.export(gradient, platforms=[platform])(X, W).mlir_module()
    return "\n".join(line for line in re.sub(r" loc\(.*?\)+", "", text).splitlines() if line[:1] != "#")


@pytest.mark.parametrize("platform", ["cpu", "cuda", "tpu"])
def test_an_export_has_lax_alone(platform):
    """An export allows no custom call and is the same program as without ``install()``."""
    jc.uninstall()
    theirs = gradients_text(platform)
    jc.install()
    assert gradients_text(platform) == theirs
    assert "stablehlo.convolution" in theirs


def test_a_portable_export_for_several_platforms(installed):
    gradient = jax.jit(jax.grad(scalar(layer), (0, 1)))
    blob = export.export(gradient, platforms=["cpu", "cuda", "tpu"])(X, W).serialize(vjp_order=1)
    again = export.deserialize(bytearray(blob))
    assert "@jax_convgrad_" in gradient.lower(X, W).as_text()
    jc.uninstall()
    assert_same(again.call(X, W), gradient(X, W))
    twice = scalar(lambda x, w: again.call(x, w)[1])
    assert_same(jax.grad(twice)(X, W), jax.grad(scalar(lambda x, w: gradient(x, w)[1]))(X, W))


def test_the_last_word_on_exports_counts():
    gradient = jax.jit(jax.grad(scalar(layer), (0, 1)))
    for kernels in (True, False, True):
        jc.install(export=kernels)
        assert ("@jax_convgrad_" in exported(["cpu"], gradient).mlir_module()) == kernels
    jc.uninstall()
    assert "@jax_convgrad_" not in exported(["cpu"], gradient).mlir_module()


def test_integers_are_exported(installed):
    x, w = (np.arange(a.size, dtype=np.int8).reshape(a.shape) % 5 for a in (X, W))
    again = export.export(jax.jit(layer), platforms=["cpu", "tpu"])(x, w)
    np.testing.assert_array_equal(again.call(x, w), layer(x, w))


def test_strides_over_symbolic_sizes_are_lax_s(installed):
    b, h = export.symbolic_shape("b,h")

    def strided(x, w):
        return lax.conv_general_dilated(x, w, (2, 2), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))

    x, w = np.ones((2, 9, 8, 3)), np.arange(54.0).reshape(3, 3, 3, 2)
    types = jax.ShapeDtypeStruct((b, h, 8, 3), x.dtype), jax.ShapeDtypeStruct(w.shape, w.dtype)
    for f in (strided, jc.replace_convolutions(strided)):
        again = export.export(jax.jit(f))(*types)
        np.testing.assert_allclose(again.call(x, w), strided(x, w), rtol=1e-12, atol=1e-12)


def both(f, args):
    """A function's values with lax's own convolution and with ours installed, from the same jaxpr."""
    jc.uninstall()
    theirs = jax.jit(f)(*args)
    jc.install()
    traced = jax.jit(f).trace(*args)
    assert not {name for name in primitives(traced.jaxpr.jaxpr) if name.startswith("jax_convgrad")}
    lowered = traced.lower()
    assert not FOREIGN_STABLEHLO.search(lowered.as_text())
    compiled = lowered.compile()
    text = compiled.as_text()
    assert not FOREIGN_HLO.search(text)
    assert "jax_convgrad_" in text
    return compiled(*args), theirs, text


def value_and_gradients(case):
    """A function of x, w and dy that returns y, dx and dw."""

    def f(x, w, dy):
        y, pull = jax.vjp(lambda x, w: lax.conv_general_dilated(x, w, **case.lax_arguments), x, w)
        return (y, *pull(dy))

    return f


@pytest.mark.parametrize(
    ("backend", "case"),
    runs(FEW, [case for case in FEW if case.name in ("2d_stride2_same", "2d_groups", "2d_depthwise")]),
    indirect=["backend"],
    ids=lambda value: getattr(value, "name", value),
)
def test_a_layer_and_its_gradients(backend, case):
    ours, theirs, text = both(value_and_gradients(case), case.arrays(np.float32))
    for name in ("fprop", "dgrad", "wgrad"):
        assert f'_{name}"' in text
    exact = case.reference(*case.arrays(np.float32))
    for part, a, b in zip(("y", "dx", "dw"), ours, theirs, strict=True):
        scale = np.abs(exact[part]).max()
        np.testing.assert_allclose(a, exact[part], rtol=1e-5, atol=2e-6 * scale)
        np.testing.assert_allclose(b, exact[part], rtol=1e-5, atol=2e-6 * scale)


@pytest.mark.parametrize("dtype", [np.complex64, np.complex128, np.float16, jnp.bfloat16])
@pytest.mark.parametrize("name", ["2d_stride2_same", "2d_groups", "2d_batch_groups"])
def test_other_dtypes(name, dtype):
    case = BY_NAME[name]
    real = case.arrays(np.float64)
    args = [jnp.asarray(a) for a in real]
    if jnp.issubdtype(dtype, jnp.complexfloating):
        args = [a + 1j * jnp.roll(a, 1) for a in args]
    ours, theirs, _ = both(value_and_gradients(case), [a.astype(dtype) for a in args])
    eps = float(jnp.finfo(dtype).eps)
    for a, b in zip(ours, theirs, strict=True):
        assert a.dtype == b.dtype
        scale = np.abs(b.astype(np.complex128)).max()
        error = np.abs(a.astype(np.complex128) - b.astype(np.complex128))
        assert error.max() <= 20 * eps * scale


@pytest.mark.parametrize(
    ("x", "w"),
    [
        ((0, 5, 4, 3), (3, 2, 3, 3)),
        ((2, 5, 4, 0), (3, 2, 0, 3)),
        ((2, 5, 4, 3), (3, 2, 3, 0)),
        ((2, 1, 1, 3), (4, 4, 3, 3)),
    ],
    ids=["no_images", "no_input_channels", "no_output_channels", "no_outputs"],
)
def test_empty_arrays(x, w):
    """Values are zero or empty, and some need no kernel, so the test compares only numbers."""

    def f(x, w):
        y, pull = jax.vjp(
            lambda x, w: lax.conv_general_dilated(
                x, w, (1, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
            ),
            x,
            w,
        )
        return (y, *pull(jnp.ones_like(y)))

    jc.uninstall()
    theirs = jax.jit(f)(jnp.ones(x), jnp.ones(w))
    jc.install()
    ours = jax.jit(f)(jnp.ones(x), jnp.ones(w))
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(a, b, strict=True)


@pytest.mark.parametrize("case", [c for c in CASES if has_outputs(c)], ids=lambda case: case.name)
def test_every_problem(case):
    ours, theirs, text = both(value_and_gradients(case), case.arrays(np.float64))
    assert_same(ours, theirs)
    # The program contains no flipped copy of a filter.
    assert " reverse(" not in text


# What is lowered are lax's own primitives, whatever made them. So jit around a gradient is left to
# test_replacement.py, and vmap of a gradient is tried with a loop, a branch or another vmap inside.
MAPPED = ("layer", "scanned", "in_cond", "mapped")
PAIRS = [
    (name, way)
    for name in FUNCTIONS
    for way in WAYS
    if name not in NO_SUCH_DERIVATIVE.get(way, ())
    and way != "jitted_gradient"
    and (way != "mapped_gradient" or name in MAPPED)
]


@pytest.mark.parametrize(("name", "way"), PAIRS)
def test_inside_everything(name, way):
    ours, theirs, _ = both(WAYS[way](FUNCTIONS[name]), (X, W))
    assert_same(ours, theirs)


DERIVATIVES = {
    "jvp": lambda f: lambda x, w: jax.jvp(f, (x, w), (jnp.sin(x), jnp.cos(w))),
    "linearize": lambda f: lambda x, w: jax.linearize(f, x, w)[1](jnp.sin(x), jnp.cos(w)),
    "jacfwd": lambda f: jax.jacfwd(f, (0, 1)),
    "jacrev": lambda f: jax.jacrev(f, (0, 1)),
    "hessian": lambda f: jax.hessian(scalar(f), (0, 1)),
    "reverse_over_reverse": lambda f: jax.jacrev(jax.grad(scalar(f), (0, 1)), (0, 1)),
    "third_order": lambda f: jax.grad(lambda x, w: jnp.sum(jax.hessian(scalar(f))(x, w) ** 2), (0, 1)),
}


@pytest.mark.parametrize("name", DERIVATIVES)
def test_derivatives_of_every_mode_and_order(name):
    ours, theirs, _ = both(DERIVATIVES[name](layer), (X[:1, :2, :2, :2], W[:2, :, :2, :2]))
    assert_same(ours, theirs)


# ---------------------------------------------------------------------------------- in and out of the process


def rules():
    return {
        platform: (table.get(lax.conv_general_dilated_p), len(table))
        for platform, table in mlir._platform_specific_lowerings.items()
    } | {"default": (mlir._lowerings[lax.conv_general_dilated_p], len(mlir._lowerings))}


def test_uninstall_leaves_no_trace():
    jc.uninstall()
    before, text = rules(), jax.jit(jax.grad(scalar(layer))).lower(X, W).as_text()
    jc.install()
    jc.install()
    assert rules() != before
    assert "@jax_convgrad_" in jax.jit(jax.grad(scalar(layer))).lower(X, W).as_text()
    jc.uninstall()
    jc.uninstall()
    assert rules() == before
    assert jax.jit(jax.grad(scalar(layer))).lower(X, W).as_text() == text


def test_functions_compiled_before_are_compiled_anew(monkeypatch):
    """The test counts the calls that our rule makes, which shows what a jitted function runs on."""
    jc.uninstall()
    f = jax.jit(layer)
    first = f(X, W)
    calls = []
    fprop = ffi.fprop
    monkeypatch.setattr(ffi, "fprop", lambda *args, **rest: calls.append(args) or fprop(*args, **rest))
    f(X, W)
    assert not calls
    jc.install()
    assert_same(f(X, W), first)
    assert len(calls) == 1
    jc.uninstall()
    f(X, W)
    assert len(calls) == 1


def test_without_jit():
    jc.uninstall()
    theirs = layer(X, W)
    jc.install()
    assert_same(layer(X, W), theirs)


LEFT_TO_LAX = {
    "integers": (jnp.ones((1, 2, 5), jnp.int32), jnp.ones((2, 2, 3), jnp.int32)),
    "four_axes": (jnp.ones((1, 2, 3, 3, 3, 3)), jnp.ones((2, 2, 2, 2, 2, 2))),
}


@pytest.mark.parametrize("name", LEFT_TO_LAX)
def test_what_the_kernels_have_not_stays_with_lax(installed, name):
    args = LEFT_TO_LAX[name]
    f = partial(lax.conv_general_dilated, window_strides=(1,) * (args[0].ndim - 2), padding="VALID")
    with_ours = jax.jit(f).lower(*args).as_text()
    assert "stablehlo.convolution" in with_ours
    assert "@jax_convgrad_" not in with_ours
    jc.uninstall()
    assert jax.jit(f).lower(*args).as_text() == with_ours


def test_polymorphic_shapes_stay_with_lax(installed):
    (batch,) = export.symbolic_shape("batch")
    exported = export.export(jax.jit(layer))(
        jax.ShapeDtypeStruct((batch, *X.shape[1:]), X.dtype), jax.ShapeDtypeStruct(W.shape, W.dtype)
    )
    assert "@jax_convgrad_" not in exported.mlir_module()
    np.testing.assert_allclose(exported.call(X, W), layer(X, W), rtol=1e-12, atol=1e-12)


def exported_text(platforms):
    return exported(platforms).mlir_module()


def exported(platforms, gradient=None):
    names = targets.backends["cpu"].module.registrations()
    checks = [export.DisabledSafetyCheck.custom_call("jax_convgrad_" + name) for name in names]
    gradient = gradient or jax.jit(jax.grad(scalar(layer), (0, 1)))
    return export.export(gradient, platforms=platforms, disabled_checks=checks)(X, W)


def test_each_platform_gets_its_own(monkeypatch):
    jc.install(export=True)
    monkeypatch.setitem(
        targets.backends, "cuda", dataclasses.replace(targets.backends["cpu"], kernel="tiled")
    )
    cuda = exported_text(["cuda"])
    assert "@jax_convgrad_dgrad" in cuda
    assert "@jax_convgrad_wgrad" in cuda
    assert 'kernel = "tiled"' in cuda
    assert "stablehlo.convolution" not in cuda
    tpu = exported_text(["tpu"])
    assert "@jax_convgrad_" not in tpu
    assert "stablehlo.convolution" in tpu
    either = exported_text(["cpu", "tpu"])
    assert "@jax_convgrad_" in either
    assert "stablehlo.convolution" in either


def test_an_export_for_several_platforms_runs_here():
    f = jax.jit(jax.grad(scalar(layer), (0, 1)))
    jc.uninstall()
    theirs = f(X, W)
    jc.install(export=True)
    ours = exported(["cpu", "tpu"])
    assert "@jax_convgrad_" in ours.mlir_module()
    assert_same(ours.call(X, W), theirs)


def test_a_platform_without_kernels_keeps_lax(installed, monkeypatch):
    monkeypatch.delitem(targets.backends, "cpu")
    assert "@jax_convgrad_" not in jax.jit(jax.grad(scalar(layer))).lower(X, W).as_text()


@pytest.mark.parametrize("name", ["_platform_specific_lowerings", "_lowerings"])
def test_a_jax_that_keeps_its_rules_elsewhere_is_refused(monkeypatch, name):
    jc.uninstall()
    monkeypatch.delattr(mlir, name)
    with pytest.raises(RuntimeError, match="replace_convolutions"):
        jc.install()
    monkeypatch.undo()
    assert "@jax_convgrad_" not in jax.jit(layer).lower(X, W).as_text()


@pytest.mark.parametrize("kernels", [False, True])
def test_an_export_for_an_abstract_mesh(kernels):
    """Exports gradients for a mesh without devices; the reloaded program runs on a mesh of real devices."""
    gradient = jax.grad(scalar(layer), (0, 1))
    jc.uninstall()
    x = jnp.concatenate([X] * 4)
    theirs = jax.jit(gradient)(x, W)
    jc.install(export=kernels)
    shardings = [
        NamedSharding(AbstractMesh((8,), ("a",), axis_types=(AxisType.Auto,)), P(*spec)) for spec in ("a", ())
    ]
    f = jax.jit(gradient, in_shardings=tuple(shardings))
    names = targets.backends["cpu"].module.registrations()
    checks = [export.DisabledSafetyCheck.custom_call("jax_convgrad_" + name) for name in names]
    given = [jax.ShapeDtypeStruct(a.shape, a.dtype) for a in (x, W)]
    program = export.export(f, platforms=["cpu", "tpu"], disabled_checks=checks if kernels else ())(*given)
    assert ("@jax_convgrad_" in program.mlir_module()) == kernels
    again = export.deserialize(bytearray(program.serialize()))
    placed = meshes.place(meshes.make("8"), (x, W), ("a", ()))
    assert_same(jax.jit(again.call)(*placed), theirs)


def test_integers_are_exported_for_an_abstract_mesh(installed):
    x = np.concatenate([np.arange(X.size, dtype=np.int8).reshape(X.shape) % 5] * 4)
    w = np.arange(W.size, dtype=np.int8).reshape(W.shape) % 3
    split = NamedSharding(AbstractMesh((8,), ("a",), axis_types=(AxisType.Auto,)), P("a"))
    given = jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=split), jax.ShapeDtypeStruct(w.shape, w.dtype)
    program = export.export(jax.jit(layer), platforms=["cpu", "tpu"])(*given)
    (placed,) = meshes.place(meshes.make("8"), (x,), ("a",))
    np.testing.assert_array_equal(jax.jit(program.call)(placed, w), layer(x, w))
