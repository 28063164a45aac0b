#!/usr/bin/env bash
# With jax_remove_custom_partitioning_ptr_from_cache_key, a program gets the executable of another one: wrong
# numbers. Without it, the cache of a program with custom_partitioning never hits in another process.
#
# Versions: jax and jaxlib 0.12.0.1, Python 3.12, CPU, 4 host devices. The same with 0.10.2.
# Guess: the persistent compilation cache's key differs between programs that compute different things, and is
# the same for the same program in a new process; the flag removes an address from the key and keeps both true.
# Seen: the key does not depend on what the partition callback computes. With the flag, a program whose callback
# multiplies by 2 loads the executable of a program that multiplies by 1, and returns x * 1. Without the flag the
# callback's address is in the key: running a program in two processes compiles it twice and leaves two
# entries in the cache. (The addresses of two processes can agree by chance; then a wrong executable
# can be loaded without the flag, too.)
set -euo pipefail

python=$(for p in ${PYTHON:-python3 python3.14 python3.13 python3.12 "$HOME"/.pyenv/versions/3.1[234]*/bin/python}; do
    "$p" -c 'import sys; assert sys.version_info >= (3, 12); print(sys.executable)' 2> /dev/null && break
done) || { echo "jax 0.12 needs Python 3.12 or later: PYTHON=... bash $0" >&2; exit 2; }
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"$python" -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
    jax==0.12.0.1 jaxlib==0.12.0.1 numpy==2.4.6 scipy==1.17.1 ml_dtypes==0.6.0

cat > "$folder/program.py" <<'PY'
import os
import sys

import jax
import jax.numpy as jnp
from jax.experimental.custom_partitioning import custom_partitioning
from jax.sharding import AxisType, NamedSharding, PartitionSpec

cache, factor, remove = sys.argv[1], float(sys.argv[2]), sys.argv[3] == "remove"
jax.config.update("jax_compilation_cache_dir", cache)
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
jax.config.update("jax_remove_custom_partitioning_ptr_from_cache_key", remove)


@custom_partitioning
def scaled(x):
    return x * factor


def partition(mesh, shapes, result):
    sharding = shapes[0].sharding
    return mesh, lambda x: x * factor, sharding, (sharding,)


scaled.def_partition(
    partition=partition,
    infer_sharding_from_operands=lambda mesh, shapes, result: shapes[0].sharding,
    sharding_rule="i -> i",
)
mesh = jax.make_mesh((4,), ("d",), axis_types=(AxisType.Auto,))
x = jax.device_put(jnp.arange(4.0), NamedSharding(mesh, PartitionSpec("d")))
before = set(os.listdir(cache))
answer = jax.jit(scaled)(x).tolist()
new = len([name for name in set(os.listdir(cache)) - before if name.endswith("-cache")])
print(f"{answer}, new entries: {new}")
PY

export JAX_PLATFORMS=cpu XLA_FLAGS=--xla_force_host_platform_device_count=4
program() {  # FOLDER FACTOR keep|remove EXPECTED
    mkdir -p "$folder/$1"
    seen=$("$folder/venv/bin/python" -I "$folder/program.py" "$folder/$1" "$2" "$3")
    echo "address in the key: $3, factor $2: $seen"
    [ "$seen" = "$4" ]
}

program without 1 remove "[0.0, 1.0, 2.0, 3.0], new entries: 1"
program without 2 remove "[0.0, 1.0, 2.0, 3.0], new entries: 0"  # not twice that
program with 1 keep "[0.0, 1.0, 2.0, 3.0], new entries: 1"
program with 1 keep "[0.0, 1.0, 2.0, 3.0], new entries: 1"  # the same program, compiled anew
program with 2 keep "[0.0, 2.0, 4.0, 6.0], new entries: 1"

echo "as stated"
