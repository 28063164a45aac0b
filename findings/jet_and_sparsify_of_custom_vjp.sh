#!/usr/bin/env bash
# Two of JAX's transformations fail with an internal error on functions with a custom derivative rule, such as
# jax.nn.relu.
#
# Versions: jax and jaxlib 0.12.0.1, Python 3.12, CPU. The same with 0.10.2.
# Guess: jax.experimental.jet differentiates jax.nn.relu like jnp.maximum(x, 0), and sparsify does not change it,
# since it does not change functions of dense arrays. Otherwise an error says what is not supported.
# Seen: jet of relu, and of any function with custom_vjp or custom_jvp such as x * x with a rule, raises
# UnexpectedTracerError, which mentions a side effect of the function. sparsify of relu of a dense array
# raises KeyError: 'subfuns'. Both work on jnp.maximum(x, 0). jet of a max pooling window also raises a KeyError,
# while a window that adds works.
set -euo pipefail

python=$(for p in ${PYTHON:-python3 python3.14 python3.13 python3.12 "$HOME"/.pyenv/versions/3.1[234]*/bin/python}; do
    "$p" -c 'import sys; assert sys.version_info >= (3, 12); print(sys.executable)' 2> /dev/null && break
done) || { echo "jax 0.12 needs Python 3.12 or later: PYTHON=... bash $0" >&2; exit 2; }
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"$python" -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
    jax==0.12.0.1 jaxlib==0.12.0.1 numpy==2.4.6 scipy==1.17.1 ml_dtypes==0.6.0

JAX_PLATFORMS=cpu "$folder/venv/bin/python" -I - <<'PY'
import jax
import jax.numpy as jnp
from jax.experimental import jet, sparse


@jax.custom_vjp
def square(x):
    return x * x


square.defvjp(lambda x: (x * x, x), lambda x, g: (2 * x * g,))


def maximum(x):
    return jnp.maximum(x, 0)


def window(op, start):
    return lambda x: jax.lax.reduce_window(x, start, op, (2,), (1,), "VALID")


def outcome(f):
    try:
        return [leaf.tolist() for leaf in jax.tree.leaves(f())]
    except Exception as error:
        return f"{type(error).__name__}: {str(error)[:60]}"


def derivative(f, x):
    return outcome(lambda: jet.jet(f, (x,), ((jnp.ones_like(x),),)))


def of_dense(f):
    return outcome(lambda: sparse.sparsify(f)(jnp.ones(3)))


one, row = jnp.array(1.0), jnp.arange(3.0)
seen = {
    "jet of maximum": derivative(maximum, one),
    "jet of relu": derivative(jax.nn.relu, one),
    "jet of a custom_vjp": derivative(square, one),
    "jet of a window's sum": derivative(window(jax.lax.add, 0.0), row),
    "jet of a window's maximum": derivative(window(jax.lax.max, -jnp.inf), row),
    "sparsify of maximum": of_dense(maximum),
    "sparsify of relu": of_dense(jax.nn.relu),
    "sparsify of a custom_vjp": of_dense(square),
}
for name, what in seen.items():
    print(f"{name}: {what}")
assert seen["jet of maximum"] == [1.0, 1.0]
assert seen["jet of relu"].startswith("UnexpectedTracerError")
assert seen["jet of a custom_vjp"].startswith("UnexpectedTracerError")
assert seen["jet of a window's sum"] == [[1.0, 3.0], [2.0, 2.0]]
assert seen["jet of a window's maximum"].startswith("KeyError: reduce_window_max")
assert seen["sparsify of maximum"] == [[1.0] * 3]
assert seen["sparsify of relu"] == seen["sparsify of a custom_vjp"] == "KeyError: 'subfuns'"
PY
echo "as stated"
