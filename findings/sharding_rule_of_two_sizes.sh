#!/usr/bin/env bash
# A sharding rule may give one name to dimensions of different sizes, and the result then depends on the number
# of devices.
#
# Versions: jax and jaxlib 0.12.0.1, Python 3.12, CPU, 4 host devices. The same with 0.10.2.
# Guess: "i -> i" says that the two dimensions are one and the same, as in einsum; a function from 8 to 16
# numbers is refused.
# Seen: custom_partitioning and Shardy silently accept the rule, for an operand of 8 and a result of 16,
# and for two operands of 16 and 12. Each device gets a share of each. So a function that is not local, such
# as concatenate([x, x]), gives the wrong order on 4 devices and the right one on 1. If the number of devices
# does not divide one of the two sizes, only that dimension is replicated.
set -euo pipefail

python=$(for p in ${PYTHON:-python3 python3.14 python3.13 python3.12 "$HOME"/.pyenv/versions/3.1[234]*/bin/python}; do
    "$p" -c 'import sys; assert sys.version_info >= (3, 12); print(sys.executable)' 2> /dev/null && break
done) || { echo "jax 0.12 needs Python 3.12 or later: PYTHON=... bash $0" >&2; exit 2; }
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"$python" -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
    jax==0.12.0.1 jaxlib==0.12.0.1 numpy==2.4.6 scipy==1.17.1 ml_dtypes==0.6.0

JAX_PLATFORMS=cpu XLA_FLAGS=--xla_force_host_platform_device_count=4 "$folder/venv/bin/python" -I - <<'PY'
import jax
import jax.numpy as jnp
from jax.experimental.custom_partitioning import custom_partitioning
from jax.sharding import AxisType, NamedSharding, PartitionSpec

mesh = jax.make_mesh((4,), ("d",), axis_types=(AxisType.Auto,))
specs = []


def partitioned(f, rule):
    def partition(mesh, operands, result):
        specs.append([tuple(a.sharding.spec) for a in (*operands, result)])
        return mesh, f, result.sharding, tuple(a.sharding for a in operands)

    g = custom_partitioning(f)
    g.def_partition(partition=partition, sharding_rule=rule)
    return jax.jit(g)


def sharded(size):
    return jax.device_put(jnp.arange(size), NamedSharding(mesh, PartitionSpec("d")))


twice = partitioned(lambda x: jnp.concatenate([x, x]), "i -> i")
on_one, on_four = twice(jnp.arange(8)).tolist(), twice(sharded(8)).tolist()
print(f"8 -> 16 under 'i -> i': on one device {on_one}, on four {on_four}, {specs}")
assert on_one == [*range(8), *range(8)]
assert on_four == [0, 1, 0, 1, 2, 3, 2, 3, 4, 5, 4, 5, 6, 7, 6, 7]

specs.clear()
with_total = partitioned(lambda x, y: x + y.sum(), "i, i -> i")
for size, spec in ((12, ("d",)), (6, (None,))):
    with_total(sharded(16), jnp.arange(size))
    print(f"16 and {size} under 'i, i -> i': {specs[-1]}")
    assert specs[-1] == [("d",), spec, ("d",)]
PY
echo "as stated"
