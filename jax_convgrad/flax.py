"""Layers for Flax models, in place of ``flax.linen``'s. This module alone imports Flax.

```python
from jax_convgrad.flax import BatchNorm
```
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

try:
    from flax import linen
    from flax.linen.dtypes import canonicalize_dtype
except ModuleNotFoundError as error:
    if error.name is not None and error.name.split(".")[0] == "flax":
        error.add_note("jax_convgrad.flax needs Flax, which jax_convgrad does not install: pip install flax")
    raise

from jax_convgrad.layers.normalization import batch_norm, check_activation
from jax_convgrad.primitives.number_types import REAL, converted


class BatchNorm(linen.BatchNorm):
    """``flax.linen.BatchNorm`` on this package's kernels: ``jax_convgrad.batch_norm`` as a module.

    Its fields, parameters and ``batch_stats`` are those of ``flax.linen.BatchNorm``, so a model changes one
    import, and checkpoints serve both. The variance is always the accurate one, whatever
    ``use_fast_variance`` says. With a ``mask``, several feature axes, ``force_float32_reductions=False`` or
    numbers that the kernels do not know, ``flax.linen.BatchNorm`` computes.

    ```python
    import flax.linen as nn
    import jax
    import jax.numpy as jnp
    from jax_convgrad.flax import BatchNorm


    class Block(nn.Module):
        @nn.compact
        def __call__(self, x, train):
            x = nn.Conv(8, (3, 3), use_bias=False)(x)
            return BatchNorm(use_running_average=not train, activation="relu")(x)


    x = jnp.ones((2, 8, 8, 3))
    variables = Block().init(jax.random.key(0), x, train=False)
    y, updates = Block().apply(variables, x, train=True, mutable=["batch_stats"])
    ```

    Attributes:
      activation: None, "relu", "relu6" or "silu", computed together with the normalisation.
    """

    activation: str | None = None

    @linen.compact
    def __call__(
        self, x: Any, use_running_average: bool | None = None, *, mask: jax.Array | None = None
    ) -> jax.Array:
        """Normalises x; the arguments are those of ``flax.linen.BatchNorm``."""
        check_activation(self.activation)
        if mask is not None or not self._is_on_kernels(x):
            y = super().__call__(x, use_running_average, mask=mask)
            return y if self.activation is None else getattr(jax.nn, self.activation)(y)
        use_running_average = linen.merge_param(
            "use_running_average", self.use_running_average, use_running_average
        )
        x = jnp.asarray(x)
        channels = x.shape[self.axis]
        mean = self.variable("batch_stats", "mean", jnp.zeros, (channels,), jnp.float32)
        var = self.variable("batch_stats", "var", jnp.ones, (channels,), jnp.float32)
        shape, dtype = (channels,), self.param_dtype
        scale = self.param("scale", self.scale_init, shape, dtype) if self.use_scale else None
        bias = self.param("bias", self.bias_init, shape, dtype) if self.use_bias else None
        given = [array for array in (x, scale, bias) if array is not None]
        result = jnp.dtype(canonicalize_dtype(*given, dtype=self.dtype))
        # A narrower result is rounded once, at the end; a wider one has to be computed in.
        wide = jnp.promote_types(result, x.dtype)
        starting = self.is_initializing()
        y, statistics = batch_norm(
            converted(x, wide),
            scale,
            bias,
            (mean.value, var.value),
            use_running_average=use_running_average,
            momentum=self.momentum,
            epsilon=self.epsilon,
            axis=self.axis,
            axis_name=None if starting else self.axis_name,
            axis_index_groups=None if starting else self.axis_index_groups,
            activation=self.activation,
        )
        if not use_running_average and not starting:
            mean.value, var.value = statistics
        return converted(y, result)

    def _is_on_kernels(self, x: Any) -> bool:
        """Reports whether ``batch_norm`` computes this."""
        return (
            isinstance(self.axis, int)
            and self.force_float32_reductions
            and jnp.result_type(x).name in REAL
            and jnp.promote_types(jnp.result_type(x), self.dtype or self.param_dtype).name in REAL
        )
