#!/usr/bin/env bash
# A function that has run under `with jax.debug_nans(False)` is not checked for NaN after that block either.
#
# Versions: jax and jaxlib 0.12.0.1, Python 3.12, CPU. The same with 0.10.2, except jaxpr_as_fun (see below).
# Guess: with jax_debug_nans on, the block switches the check off, and after the block the check is on again.
# Seen: a jitted function, or an op outside jit, whose first call with some shape is inside the block returns
# NaN for that shape without an error from then on. Other shapes are checked. Inside `with
# jax.debug_nans(True)` the function is checked, and after that block it is not. If the very first call was
# outside of the block, the check does come back. jax.extend.core.jaxpr_as_fun has such a block inside: with
# 0.12.0.1, calling a jaxpr once turns the check off for its ops, even if they are called from elsewhere later.
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
from jax.extend.core import jaxpr_as_fun

jax.config.update("jax_debug_nans", True)


def outcome(f, x):
    try:
        f(x)
    except FloatingPointError:
        return "raises"
    return "NaN, nothing said"


x, shorter = jnp.array([-1.0, 2.0, 3.0]), jnp.array([-1.0, 2.0])
for name, f in (("a jitted function", jax.jit(lambda x: jnp.log(x) * 2)), ("an op", jax.lax.sqrt)):
    with jax.debug_nans(False):
        inside = outcome(f, x)
    after = [outcome(f, x) for _ in range(3)]
    with jax.debug_nans(True):
        switched_on = outcome(f, x)
    later, other_shape = outcome(f, x), outcome(f, shorter)
    print(f"{name}: inside: {inside}; after: {after}; switched on: {switched_on}; later: {later}")
    print(f"    another shape: {other_shape}")
    assert inside == "NaN, nothing said"
    assert after == ["NaN, nothing said"] * 3
    assert switched_on == "raises"
    assert later == "NaN, nothing said"
    assert other_shape == "raises"

g = jax.jit(lambda x: jnp.log(x) * 3)
first = outcome(g, x)
with jax.debug_nans(False):
    inside = outcome(g, x)
after = outcome(g, x)
print(f"called before: {first}; inside: {inside}; after: {after}")
assert (first, inside, after) == ("raises", "NaN, nothing said", "raises")

rsqrt = jaxpr_as_fun(jax.make_jaxpr(jax.lax.rsqrt)(x))
inside, after = outcome(rsqrt, x), outcome(jax.lax.rsqrt, x)
print(f"by jaxpr_as_fun: {inside}; the op afterwards: {after}")
assert inside == "NaN, nothing said"
assert after == ("NaN, nothing said" if jax.__version_info__ >= (0, 12) else "raises")
PY
echo "as stated"
