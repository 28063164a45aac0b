#!/usr/bin/env bash
# XLA on a CPU adds up bfloat16 over devices in float32, and float16 in float16.
#
# Versions: jax and jaxlib 0.12.0.1, Python 3.12, CPU, 8 host devices. The same with 0.10.2.
# Guess: psum gives what adding the 8 numbers in their own dtype gives, in some order; and both 16-bit types
# are treated alike.
# Seen: psum of bfloat16 256, 1, 1, 1, 1, 1, 1, 1 is 264 - rounded once, from an exact sum - where adding each
# 1 to 256 in bfloat16 leaves 256. The lowered program has a bfloat16 all_reduce; the compiled one converts,
# reduces in f32 and converts back. The float16 sum of 2048 and seven ones stays 2048, and its all-reduce is
# f16. So on a CPU a test of a gradient's sum over devices in bfloat16 says nothing about a sum in bfloat16.
set -euo pipefail

python=$(for p in ${PYTHON:-python3 python3.14 python3.13 python3.12 "$HOME"/.pyenv/versions/3.1[234]*/bin/python}; do
    "$p" -c 'import sys; assert sys.version_info >= (3, 12); print(sys.executable)' 2> /dev/null && break
done) || { echo "jax 0.12 needs Python 3.12 or later: PYTHON=... bash $0" >&2; exit 2; }
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"$python" -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
    jax==0.12.0.1 jaxlib==0.12.0.1 numpy==2.4.6 scipy==1.17.1 ml_dtypes==0.6.0

JAX_PLATFORMS=cpu XLA_FLAGS=--xla_force_host_platform_device_count=8 "$folder/venv/bin/python" -I - <<'PY'
import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, PartitionSpec

mesh = jax.make_mesh((8,), ("d",), axis_types=(AxisType.Auto,))
spec = PartitionSpec("d")
total = jax.jit(jax.shard_map(lambda x: jax.lax.psum(x, "d"), mesh=mesh, in_specs=spec, out_specs=PartitionSpec()))


def seen(numbers, dtype):
    x = jnp.array(numbers, dtype)
    one_by_one = functools.reduce(lambda a, b: a + b, np.asarray(x))
    lowered = total.lower(x)
    asked = re.search(r'all_reduce".*?\) : \(tensor<1x(\w+)>\)', lowered.as_text(), re.DOTALL)[1]
    done = re.search(r"= (\w+)\[1\]\S* all-reduce\(", lowered.compile().as_text())[1]
    answer = total(x)[0].item(), float(one_by_one), asked, done
    print(f"{dtype.__name__}: psum {answer[0]}, one by one {answer[1]}, all-reduce asked for {asked}, done in {done}")
    return answer


assert seen([256] + [1] * 7, jnp.bfloat16) == (264.0, 256.0, "bf16", "f32")
assert seen([2048] + [1] * 7, jnp.float16) == (2048.0, 2048.0, "f16", "f16")
PY
echo "as stated"
